/* SPDX-License-Identifier: MIT */
/*
 * External engine of fio over libnvmf-rdma. It is compiled against the source of the fio that loads it
 * (see the script `build`), since the number that fio compares does not change with its structures.
 *
 * Each job has a controller with one queue, which it connects after the fork. fio's buffers are
 * registered memory. A doorbell is rung when fio asks for completions: once for all commands that it
 * has queued since. Only where fio may sleep in between does `commit` ring it.
 */
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fio.h"
#include "optgroup.h"

#include <nvmf-rdma.h>

/* Options of a connection, by the names of nvmf(1) and nvme-cli. */
#define CONNECT_OPTIONS(o)                                                                         \
	o("transport") o("traddr") o("trsvcid") o("nqn") o("config") o("host-traddr") o("hostnqn") \
	o("hostid") o("nr-io-queues") o("queue-size") o("keep-alive-tmo") o("reconnect-delay")     \
	o("ctrl-loss-tmo") o("fast-io-fail-tmo") o("reconnect-delay-max") o("reconnect-jitter")    \
	o("reconnect-time-limit") o("reconnect-strict") o("retry-first-connect")                   \
	o("dhchap-secret") o("dhchap-secret-file") o("dhchap-secret-fd") o("dhchap-secret-key")    \
	o("dhchap-ctrl-secret") o("dhchap-ctrl-secret-file") o("dhchap-ctrl-secret-fd")            \
	o("dhchap-ctrl-secret-key") o("dhchap-min-hash") o("dhchap-min-group")                     \
	o("dhchap-allow-unasked") o("tos") o("ack-timeout") o("retry-count") o("disable-sqflow")   \
	o("wait") o("memory") o("fence") o("fence-tmo") o("fence-cntlid")

#define NAME(name) name,
static const char *const names[] = { CONNECT_OPTIONS(NAME) };
enum { OPTION_COUNT = sizeof(names) / sizeof(names[0]) };

/* Options of a job, in the form that fio fills in. */
struct nvmf_engine_options {
	void *pad;
	char *target;
	unsigned int ns;
	char *values[OPTION_COUNT];
};

/* State of a job. */
struct nvmf_job {
	struct nvmf_controller *controller;
	struct nvmf_queue *queue;
	struct nvmf_memory *memory;
	char *address; /* of the memory */
	struct nvmf_completion *completions;
	unsigned int nsid;
	unsigned int block_size;
	uint64_t bytes; /* of the namespace */
};

enum { WAIT_NS = 100000000 }; /* between two looks at whether the job is to end */

/* Two options and the end, before and after those of a connection. */
static struct fio_option options[OPTION_COUNT + 3];

extern const char fio_version_string[];

static int failed(struct thread_data *td, const char *what, int result)
{
	log_err("nvmf: %s: %s\n", what, nvmf_error_text());
	td_verror(td, -result, "nvmf");
	return 1;
}

/* Sets what the job file sets; the number and the size of queues are those that a job needs. */
static int set_options(struct thread_data *td, struct nvmf_options *to)
{
	struct nvmf_engine_options *o = td->eo;
	unsigned int entries = min(max(td->o.iodepth + 1, 16U), 1024U);
	char text[16];
	int i, r;

	snprintf(text, sizeof(text), "%u", entries);
	r = nvmf_options_set(to, "queue-size", text);
	if (!r)
		r = nvmf_options_set(to, "nr-io-queues", "1");
	for (i = 0; i < OPTION_COUNT && !r; i++)
		if (o->values[i] && *o->values[i])
			r = nvmf_options_set(to, names[i], o->values[i]);
	return r;
}

static int connect_job(struct thread_data *td, struct nvmf_job *job)
{
	struct nvmf_engine_options *o = td->eo;
	struct nvmf_namespace ns = { .size = sizeof(ns) };
	struct nvmf_options *given;
	int r;

	r = nvmf_options_create(o->target && *o->target ? o->target : NULL, &given);
	if (r)
		return failed(td, "target", r);
	r = set_options(td, given);
	if (!r)
		r = nvmf_connect(given, &job->controller);
	if (r) {
		failed(td, "connect", r);
		nvmf_options_free(given);
		return 1;
	}
	nvmf_options_free(given);
	r = nvmf_namespace_get(job->controller, o->ns, &ns);
	if (r) {
		failed(td, "namespace", r);
		nvmf_disconnect(job->controller);
		job->controller = NULL;
		return 1;
	}
	job->nsid = o->ns;
	job->block_size = ns.block_size;
	job->bytes = ns.blocks * ns.block_size;
	return 0;
}

/*
 * Size of the namespace, before the jobs are forked. A process of its own connects for that: devices
 * that this one had opened would not serve the processes that it forks.
 */
static uint64_t bytes_of_namespace(struct thread_data *td)
{
	uint64_t bytes = 0;
	int ends[2];
	pid_t child;

	if (pipe(ends)) {
		td_verror(td, errno, "pipe");
		return 0;
	}
	fflush(NULL);
	child = fork();
	if (child == 0) {
		struct nvmf_job job = { 0 };
		bool written = false;

		if (!connect_job(td, &job)) {
			nvmf_disconnect(job.controller);
			written = write(ends[1], &job.bytes, sizeof(job.bytes)) == sizeof(job.bytes);
		}
		fflush(NULL);
		_exit(!written);
	}
	close(ends[1]);
	if (child < 0)
		td_verror(td, errno, "fork");
	else if (read(ends[0], &bytes, sizeof(bytes)) != sizeof(bytes))
		td_verror(td, ENODEV, "nvmf");
	close(ends[0]);
	if (child > 0)
		waitpid(child, NULL, 0);
	return bytes;
}

static int engine_setup(struct thread_data *td)
{
	uint64_t bytes = bytes_of_namespace(td);
	struct fio_file *f;
	unsigned int i;

	if (!bytes)
		return 1;
	if (!td->files_index) {
		add_file(td, td->o.filename ? td->o.filename : "nvmf", 0, 1);
		td->o.nr_files = td->o.nr_files ? td->o.nr_files : 1;
		td->o.open_files++;
	}
	for_each_file(td, f, i) {
		f->filetype = FIO_TYPE_BLOCK;
		f->real_file_size = bytes;
		fio_file_set_size_known(f);
	}
	return 0;
}

static struct nvmf_job *job_of(struct thread_data *td)
{
	struct nvmf_job *job = td->io_ops_data;
	int r;

	if (job)
		return job;
	job = calloc(1, sizeof(*job));
	if (!job)
		return NULL;
	job->completions = calloc(td->o.iodepth, sizeof(*job->completions));
	if (!job->completions || connect_job(td, job))
		goto free;
	r = nvmf_queue_get(job->controller, 0, &job->queue);
	if (!r)
		r = nvmf_queue_own_thread(job->queue, thread_number);
	if (r) {
		failed(td, "queue", r);
		nvmf_disconnect(job->controller);
		goto free;
	}
	td->io_ops_data = job;
	return job;
free:
	free(job->completions);
	free(job);
	return NULL;
}

static int engine_init(struct thread_data *td)
{
	return job_of(td) ? 0 : 1;
}

static void engine_cleanup(struct thread_data *td)
{
	struct nvmf_job *job = td->io_ops_data;

	if (!job)
		return;
	nvmf_disconnect(job->controller);
	free(job->completions);
	free(job);
	td->io_ops_data = NULL;
}

static int engine_memory(struct thread_data *td, size_t bytes)
{
	struct nvmf_job *job = job_of(td);
	void *address;
	int r;

	if (!job)
		return 1;
	r = nvmf_memory_allocate(job->controller, bytes, &job->memory, &address);
	if (r)
		return failed(td, "memory", r);
	job->address = address;
	td->orig_buffer = address;
	return 0;
}

/* The memory ends with the controller. */
static void engine_memory_free(struct thread_data *td)
{
	td->orig_buffer = NULL;
}

static int queue_command(struct thread_data *td, struct nvmf_job *job, struct io_u *io_u)
{
	uint64_t user = (uintptr_t)io_u, offset = (char *)io_u->xfer_buf - job->address;
	uint64_t lba = io_u->offset / job->block_size;
	uint32_t blocks = io_u->xfer_buflen / job->block_size;
	struct nvmf_range range = { .lba = lba, .blocks = blocks };

	if (ddir_rw(io_u->ddir) &&
	    (io_u->offset % job->block_size || io_u->xfer_buflen % job->block_size)) {
		log_err("nvmf: %llu bytes at %llu are no blocks of %u bytes\n",
			(unsigned long long)io_u->xfer_buflen, (unsigned long long)io_u->offset,
			job->block_size);
		return -EINVAL;
	}
	switch (io_u->ddir) {
	case DDIR_READ:
		return nvmf_read(job->queue, job->nsid, lba, blocks, job->memory, offset, user);
	case DDIR_WRITE:
		return nvmf_write(job->queue, job->nsid, lba, blocks, job->memory, offset,
				  td->o.sync_io ? NVMF_FORCE_UNIT_ACCESS : 0, user);
	case DDIR_TRIM:
		return nvmf_dsm(job->queue, job->nsid, &range, 1, user);
	case DDIR_SYNC:
	case DDIR_DATASYNC:
		return nvmf_flush(job->queue, job->nsid, user);
	default:
		return -EOPNOTSUPP;
	}
}

static enum fio_q_status engine_queue(struct thread_data *td, struct io_u *io_u)
{
	struct nvmf_job *job = td->io_ops_data;
	int r;

	fio_ro_check(td, io_u);
	r = queue_command(td, job, io_u);
	if (!r)
		return FIO_Q_QUEUED;
	if (r == -EAGAIN)
		return FIO_Q_BUSY;
	if (r != -EINVAL || nvmf_error_class())
		log_err("nvmf: %s\n", nvmf_error_text());
	io_u->error = -r;
	td_verror(td, -r, "nvmf");
	return FIO_Q_COMPLETED;
}

/* Where fio asks for completions soon, the doorbell waits for that. */
static int engine_commit(struct thread_data *td)
{
	struct nvmf_job *job = td->io_ops_data;
	bool may_sleep = should_check_rate(td) || td->o.thinktime || td->o.iodepth_batch > 1;

	return may_sleep ? nvmf_submit(job->queue) : 0;
}

static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max,
			    const struct timespec *t)
{
	struct nvmf_job *job = td->io_ops_data;
	int64_t left = t ? (int64_t)t->tv_sec * 1000000000 + t->tv_nsec : INT64_MAX;
	unsigned int count = 0;

	if (max > td->o.iodepth)
		max = td->o.iodepth;
	do {
		int64_t limit = left < WAIT_NS ? left : WAIT_NS;
		int r = nvmf_wait(job->queue, job->completions + count, min - count, max - count,
				  min ? limit : 0);

		if (r < 0)
			return count ? (int)count : r;
		count += r;
		left -= limit;
	} while (count < min && left > 0 && !td->terminate);
	return count;
}

static struct io_u *engine_event(struct thread_data *td, int event)
{
	struct nvmf_job *job = td->io_ops_data;
	const struct nvmf_completion *completion = &job->completions[event];
	struct io_u *io_u = (struct io_u *)(uintptr_t)completion->user;

	io_u->error = -completion->result;
	if (io_u->error)
		log_err("nvmf: %s\n", nvmf_error_text());
	return io_u;
}

static int engine_file(struct thread_data *td, struct fio_file *f)
{
	return 0;
}

static struct ioengine_ops nvmf_engine = {
	.name = "nvmf",
	.version = FIO_IOOPS_VERSION,
	.flags = FIO_RAWIO | FIO_NOEXTEND | FIO_NODISKUTIL | FIO_DISKLESSIO | FIO_MEMALIGN,
	.setup = engine_setup,
	.init = engine_init,
	.cleanup = engine_cleanup,
	.iomem_alloc = engine_memory,
	.iomem_free = engine_memory_free,
	.queue = engine_queue,
	.commit = engine_commit,
	.getevents = engine_getevents,
	.event = engine_event,
	.open_file = engine_file,
	.close_file = engine_file,
	.options = options,
	.option_struct_size = sizeof(struct nvmf_engine_options),
};

static void describe_options(void)
{
	struct fio_option *o = options;
	int i;

	for (i = 0; i < OPTION_COUNT + 2; i++, o++) {
		o->category = FIO_OPT_C_ENGINE;
		o->group = FIO_OPT_G_INVALID;
		o->type = FIO_OPT_STR_STORE;
		o->help = "as the option of nvmf(1)";
	}
	for (i = 0; i < OPTION_COUNT; i++) {
		options[i].name = options[i].lname = names[i];
		options[i].off1 = offsetof(struct nvmf_engine_options, values) +
				  (unsigned int)i * sizeof(char *);
	}
	options[i].name = options[i].lname = "target";
	options[i].help = "URI, SPDK transport ID, or @NAME of /etc/nvme";
	options[i++].off1 = offsetof(struct nvmf_engine_options, target);
	options[i].name = options[i].lname = "ns";
	options[i].type = FIO_OPT_INT;
	options[i].help = "Namespace identifier";
	options[i].def = "1";
	options[i].off1 = offsetof(struct nvmf_engine_options, ns);
}

/*
 * Called by fio when it has loaded the engine. In a fio of another version the structures differ, and
 * nothing but its version is looked at.
 */
void get_ioengine(struct ioengine_ops **engine);
void get_ioengine(struct ioengine_ops **engine)
{
	if (strcmp(fio_version_string, BUILT_FOR) != 0) {
		fprintf(stderr, "nvmf: this engine is for %s, and this is %s; build it again: rdma-host/fio/build\n",
			BUILT_FOR, fio_version_string);
		return;
	}
	if (!options[0].name)
		describe_options();
	*engine = &nvmf_engine;
}
