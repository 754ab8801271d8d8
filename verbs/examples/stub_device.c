/* A device that does next to nothing, beneath `RdmaCore`: to be preloaded in front of libibverbs
 * and librdmacm. Whatever is sent is in the peer's next receive at once. It has what
 * `cost_device.rs` needs, and no more; nothing is ever freed. See `cost.sh`. */

#include <errno.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ENTRIES = 256 };

struct channel {
	struct rdma_event_channel seen;
	int in;
};

struct queue {
	struct ibv_cq seen;
	unsigned head, tail;
	struct ibv_wc entries[ENTRIES];
};

struct pair {
	struct ibv_qp seen;
	struct pair *peer;
	struct queue *queue;
	unsigned head, tail;
	struct { uint64_t id; struct ibv_sge to; } receives[ENTRIES];
};

static struct ibv_device device;
static struct ibv_context context;
static struct rdma_cm_id *listener, *caller;
static uint32_t made;

static void complete(struct queue *queue, uint64_t id, enum ibv_wc_opcode opcode, uint32_t length,
		     uint32_t number)
{
	struct ibv_wc *wc = &queue->entries[queue->head++ % ENTRIES];
	wc->wr_id = id;
	wc->status = IBV_WC_SUCCESS;
	wc->opcode = opcode;
	wc->byte_len = length;
	wc->qp_num = number;
	wc->wc_flags = 0;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct pair *pair = (struct pair *)qp, *peer = pair->peer;
	for (; wr; wr = wr->next) {
		unsigned next = peer->tail++ % ENTRIES;
		struct ibv_sge from = wr->sg_list[0];
		if (wr->opcode != IBV_WR_SEND || peer->tail > peer->head) {
			*bad = wr;
			return EINVAL;
		}
		memcpy((void *)peer->receives[next].to.addr, (void *)from.addr, from.length);
		complete(peer->queue, peer->receives[next].id, IBV_WC_RECV, from.length,
			 peer->seen.qp_num);
		if (wr->send_flags & IBV_SEND_SIGNALED)
			complete(pair->queue, wr->wr_id, IBV_WC_SEND, from.length, qp->qp_num);
	}
	return 0;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct pair *pair = (struct pair *)qp;
	(void)bad;
	for (; wr; wr = wr->next) {
		unsigned next = pair->head++ % ENTRIES;
		pair->receives[next].id = wr->wr_id;
		pair->receives[next].to = wr->sg_list[0];
	}
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *out)
{
	struct queue *queue = (struct queue *)cq;
	int taken = 0;
	while (taken < count && queue->tail != queue->head)
		out[taken++] = queue->entries[queue->tail++ % ENTRIES];
	return taken;
}

static int tell(struct rdma_cm_id *id, enum rdma_cm_event_type what)
{
	struct rdma_cm_event *event = calloc(1, sizeof *event);
	struct rdma_cm_id *whom = what == RDMA_CM_EVENT_CONNECT_REQUEST ? listener : id;
	event->id = id;
	event->event = what;
	return write(((struct channel *)whom->channel)->in, &event, sizeof event) < 0;
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
	struct channel *channel = calloc(1, sizeof *channel);
	int ends[2];
	if (pipe(ends))
		return NULL;
	channel->seen.fd = ends[0];
	channel->in = ends[1];
	return &channel->seen;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
	close(channel->fd);
	close(((struct channel *)channel)->in);
}

static void find_device(struct rdma_cm_id *id)
{
	if (!context.device) {
		context.device = &device;
		context.async_fd = eventfd(0, 0);
		context.ops.post_send = post_send;
		context.ops.post_recv = post_recv;
		context.ops.poll_cq = poll_cq;
	}
	id->verbs = &context;
	id->route.addr.src_addr.sa_family = AF_INET;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *unused,
		   enum rdma_port_space ports)
{
	(void)unused, (void)ports;
	*id = calloc(1, sizeof **id);
	(*id)->channel = channel;
	return 0;
}

int rdma_destroy_id(struct rdma_cm_id *id) { (void)id; return 0; }

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *address)
{
	(void)address;
	find_device(id);
	return 0;
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
	(void)backlog;
	listener = id;
	return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int ms)
{
	(void)from, (void)to, (void)ms;
	find_device(id);
	return tell(id, RDMA_CM_EVENT_ADDR_RESOLVED);
}

int rdma_resolve_route(struct rdma_cm_id *id, int ms)
{
	(void)ms;
	return tell(id, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

int rdma_set_option(struct rdma_cm_id *id, int level, int name, void *value, size_t length)
{
	(void)id, (void)level, (void)name, (void)value, (void)length;
	return 0;
}

int rdma_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *asked)
{
	struct pair *pair = calloc(1, sizeof *pair);
	(void)pd;
	pair->seen.context = &context;
	pair->seen.qp_num = ++made;
	pair->queue = (struct queue *)asked->send_cq;
	id->qp = &pair->seen;
	return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *id) { id->qp = NULL; }

int rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *unused)
{
	struct rdma_cm_id *other = calloc(1, sizeof *other);
	(void)unused;
	caller = id;
	find_device(other);
	return tell(other, RDMA_CM_EVENT_CONNECT_REQUEST);
}

int rdma_migrate_id(struct rdma_cm_id *id, struct rdma_event_channel *channel)
{
	id->channel = channel;
	return 0;
}

int rdma_accept(struct rdma_cm_id *id, struct rdma_conn_param *unused)
{
	struct pair *one = (struct pair *)id->qp, *other = (struct pair *)caller->qp;
	(void)unused;
	one->peer = other;
	other->peer = one;
	return tell(id, RDMA_CM_EVENT_ESTABLISHED) || tell(caller, RDMA_CM_EVENT_ESTABLISHED);
}

int rdma_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **event)
{
	return read(channel->fd, event, sizeof *event) < 0 ? -1 : 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event) { (void)event; return 0; }

int ibv_query_device(struct ibv_context *of, struct ibv_device_attr *attributes)
{
	(void)of, (void)attributes;
	return ENOSYS;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *of, uint8_t port, struct _compat_ibv_port_attr *attributes)
{
	(void)of, (void)port, (void)attributes;
	return ENOSYS;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *of)
{
	struct ibv_pd *pd = calloc(1, sizeof *pd);
	pd->context = of;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd) { (void)pd; return 0; }

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *start, size_t length, uint64_t address,
				unsigned access)
{
	struct ibv_mr *mr = calloc(1, sizeof *mr);
	(void)start, (void)length, (void)address, (void)access;
	mr->pd = pd;
	mr->lkey = mr->rkey = ++made;
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr) { (void)mr; return 0; }

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *of)
{
	struct ibv_comp_channel *channel = calloc(1, sizeof *channel);
	channel->context = of;
	channel->fd = eventfd(0, 0);
	return channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel) { return close(channel->fd); }

struct ibv_cq *ibv_create_cq(struct ibv_context *of, int entries, void *unused,
			     struct ibv_comp_channel *channel, int vector)
{
	struct queue *queue = calloc(1, sizeof *queue);
	(void)unused, (void)vector;
	queue->seen.context = of;
	queue->seen.channel = channel;
	queue->seen.cqe = entries;
	return &queue->seen;
}

int ibv_destroy_cq(struct ibv_cq *cq) { (void)cq; return 0; }
