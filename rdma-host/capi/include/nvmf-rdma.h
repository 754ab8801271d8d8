/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libnvmf-rdma: NVMe over Fabrics over RDMA in user space. The manual page nvmf-rdma(3) has an
 * introduction and an example.
 *
 * A call returns 0, or a number of things, or a negative number of errno. nvmf_error_text() then has
 * one line for the user, and nvmf_error_class() says whose side it is; both are of the calling
 * thread. These numbers are the same for all calls:
 *
 *   -EBADF   the handle is of no such object, was closed, or is of the process before a fork
 *   -EBUSY   another thread is using the object
 *   -EFAULT  an address is null or not aligned
 *   -EINVAL  an argument is wrong, or a call is not possible now
 *   -ENOTRECOVERABLE  a bug of this library
 *
 * A handle is no address. Controllers and memory may be used by several threads at a time; options
 * and a queue by one at a time. Nothing calls back, installs a handler of signals, or prints. After
 * a fork the child has no handles.
 *
 * Structures with a field `size` grow at their end in later versions. Set it to sizeof the structure
 * before a call; the call sets it to the number of bytes that it has written.
 */
#ifndef NVMF_RDMA_H
#define NVMF_RDMA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nvmf_options;
struct nvmf_controller;
struct nvmf_queue;
struct nvmf_memory;

/* Version of the library, as "0.1.0". */
const char *nvmf_version(void);

/* ---- Errors ---- */

/* Side of an error; the numbers are those of the exit codes of nvmf(1). */
enum nvmf_class {
	NVMF_CLASS_NONE = 0,
	NVMF_CLASS_FAILED = 1,    /* the command, or the target, failed */
	NVMF_CLASS_CALLER = 2,    /* this program */
	NVMF_CLASS_ACCESS = 3,    /* access is refused for good */
	NVMF_CLASS_TRANSPORT = 4, /* the network, or the target is absent; trying again may help */
};

/* Text of the last error of this thread, until its next call; never null. */
const char *nvmf_error_text(void);

/* Class of the last error of this thread, of enum nvmf_class. */
int nvmf_error_class(void);

/* ---- Options ---- */

/*
 * Options of a target: a URI (nvmf-rdma://ADDRESS[:PORT]/NQN), an SPDK transport ID, or @NAME for a
 * subsystem of the configuration in /etc/nvme. Null if the options traddr, trsvcid and nqn name it.
 */
int nvmf_options_create(const char *target, struct nvmf_options **options);

/*
 * Sets an option by its name on the command line of nvmf(1), which are those of nvme-cli, as in
 * ("ctrl-loss-tmo", "30") or ("dhchap-secret-file", "/etc/nvme/key"). Flags take "true" or "false".
 * The option is set in place of its former value; nvmf-rdma(3) lists all.
 */
int nvmf_options_set(struct nvmf_options *options, const char *name, const char *value);

/* Frees options; controllers that were connected with them keep them. */
int nvmf_options_free(struct nvmf_options *options);

/* ---- Controllers ---- */

/* State of a controller. Only NVMF_LIVE executes commands; in the others they wait for it. */
enum nvmf_state {
	NVMF_NEW = 0,
	NVMF_CONNECTING = 1,
	NVMF_LIVE = 2,
	NVMF_RESETTING = 3, /* the connection was lost, and is torn down */
	NVMF_WAITING = 4,   /* for the next attempt to connect */
	NVMF_DELETING = 5,
	NVMF_DEAD = 6,      /* for good: commands fail */
};

struct nvmf_controller_info {
	uint64_t size;
	uint64_t transfer_bytes_max; /* of one command */
	uint32_t io_queues;
	uint32_t queue_entries;      /* one command less can be in flight */
	uint32_t state;              /* enum nvmf_state */
	uint32_t controller_id;
	uint32_t memory_mode;        /* 0 pool, 1 window: option "memory" */
	int32_t numa_node;           /* of the RDMA device; -1 if it is not known */
	char device[64];             /* name of the RDMA device */
	char serial[24];
	char model[48];
	char firmware[16];
};

/*
 * Connects; takes up to a minute. A thread of the library serves the admin queue and reconnects: when
 * the connection is lost, commands wait for the next one as long as the options ctrl-loss-tmo and
 * fast-io-fail-tmo say (600 seconds if they are not set), and those that were in flight are sent
 * again. A process may have 1,024 controllers.
 */
int nvmf_connect(struct nvmf_options *options, struct nvmf_controller **controller);

/*
 * Shuts the controller down within a second, and ends its queues and its memory, whose handles are
 * invalid then. Commands in flight do not complete. -EBUSY while another thread uses one of them.
 */
int nvmf_disconnect(struct nvmf_controller *controller);

/* Disconnects and connects again at once; commands wait as after a loss. */
int nvmf_reset(struct nvmf_controller *controller);

int nvmf_controller_get(struct nvmf_controller *controller, struct nvmf_controller_info *info);

/* Writes up to max identifiers of active namespaces; returns how many there are. */
int nvmf_namespace_list(struct nvmf_controller *controller, uint32_t *nsids, size_t max);

struct nvmf_namespace {
	uint64_t size;
	uint64_t blocks;
	uint32_t block_size; /* in bytes, a power of two */
	uint32_t nsid;
	uint8_t nguid[16];   /* these three are zeroes if there is none */
	uint8_t uuid[16];
	uint8_t eui64[8];
};

/*
 * Identifies a namespace. It must have been called once for a namespace before it is read or written.
 * If the identifier belongs to another namespace later on, commands to it are refused until it is
 * called again. A namespace with metadata is refused (-EINVAL): this library transfers data alone.
 */
int nvmf_namespace_get(struct nvmf_controller *controller, uint32_t nsid,
		       struct nvmf_namespace *namespace_);

enum nvmf_event_kind {
	NVMF_EVENT_STATE = 0,  /* the controller entered a state */
	NVMF_EVENT_NOTICE = 1, /* the controller sent an asynchronous event, as of a changed namespace */
};

struct nvmf_event {
	uint64_t size;
	uint64_t time_ns;      /* since 1970 */
	uint64_t next_ms;      /* until the next attempt to connect */
	uint32_t kind;         /* enum nvmf_event_kind */
	uint32_t state;        /* enum nvmf_state, after the event */
	uint32_t attempt;      /* number of attempts since the loss */
	uint32_t attempts_max; /* 0 for no limit */
	uint64_t missed;       /* number of events before this one that were not read in time */
	char text[256];        /* one line */
};

/* Takes the oldest event, of which 64 are kept; returns 1, or 0 if there is none. */
int nvmf_event_next(struct nvmf_controller *controller, struct nvmf_event *event);

/* File descriptor that is readable while there are events; not to be read or closed. */
int nvmf_event_fd(struct nvmf_controller *controller);

/* ---- Memory ---- */

/* Allocates zeroed memory that commands of this controller transfer to and from. */
int nvmf_memory_allocate(struct nvmf_controller *controller, size_t bytes,
			 struct nvmf_memory **memory, void **address);

/* Registers memory of the program, which must stay mapped until it was freed here, or disconnected. */
int nvmf_memory_register(struct nvmf_controller *controller, void *address, size_t bytes,
			 struct nvmf_memory **memory);

/* Ends the registration; unmaps memory that was allocated. -EBUSY while a command uses it. */
int nvmf_memory_free(struct nvmf_memory *memory);

/* ---- Queues ---- */

/* Queue of this number, from 0 on. It is the controller's; nvmf_disconnect() ends it. */
int nvmf_queue_get(struct nvmf_controller *controller, uint32_t index, struct nvmf_queue **queue);

enum nvmf_execution {
	NVMF_ANSWERED = 0, /* the controller has answered: status tells */
	NVMF_NOT_SENT = 1, /* it was not executed */
	NVMF_UNKNOWN = 2,  /* it may have been executed, or yet be */
};

struct nvmf_completion {
	uint64_t user;     /* number that was given with the command */
	int32_t result;    /* 0, or a negative number of errno */
	uint16_t status;   /* of NVMe (SC, SCT, CRD, M, DNR), 0 without a failed answer */
	uint8_t execution; /* enum nvmf_execution */
	uint8_t reserved;
};

enum nvmf_flags {
	NVMF_FORCE_UNIT_ACCESS = 1, /* complete once the blocks are on non-volatile media */
	NVMF_DEALLOCATE = 2,        /* write zeroes: the blocks may be deallocated */
};

/* Part of a vectored command. */
struct nvmf_segment {
	struct nvmf_memory *memory;
	uint64_t offset;
	uint32_t blocks;
	uint32_t reserved;
};

struct nvmf_range {
	uint64_t lba;
	uint32_t blocks;
	uint32_t reserved;
};

/*
 * Commands. Each is queued, and completes once: nvmf_poll() returns it with the number `user`. The
 * memory must not be freed before, and has its content only then. -EAGAIN: the queue is full, poll
 * first. A vectored command completes once all segments have; it counts as one for each of them.
 */
int nvmf_read(struct nvmf_queue *queue, uint32_t nsid, uint64_t lba, uint32_t blocks,
	      struct nvmf_memory *memory, uint64_t offset, uint64_t user);
int nvmf_write(struct nvmf_queue *queue, uint32_t nsid, uint64_t lba, uint32_t blocks,
	       struct nvmf_memory *memory, uint64_t offset, uint32_t flags, uint64_t user);
int nvmf_readv(struct nvmf_queue *queue, uint32_t nsid, uint64_t lba,
	       const struct nvmf_segment *segments, size_t count, uint64_t user);
int nvmf_writev(struct nvmf_queue *queue, uint32_t nsid, uint64_t lba,
		const struct nvmf_segment *segments, size_t count, uint32_t flags, uint64_t user);
int nvmf_flush(struct nvmf_queue *queue, uint32_t nsid, uint64_t user);
int nvmf_write_zeroes(struct nvmf_queue *queue, uint32_t nsid, uint64_t lba, uint32_t blocks,
		      uint32_t flags, uint64_t user);
/* Dataset Management: deallocates 1 to 256 ranges. */
int nvmf_dsm(struct nvmf_queue *queue, uint32_t nsid, const struct nvmf_range *ranges, size_t count,
	     uint64_t user);

/* Hands the queued commands to the device, with one doorbell. */
int nvmf_submit(struct nvmf_queue *queue);

/*
 * Submits, takes up to max completions and returns their number; never sleeps. A queue that has
 * commands in flight is to be polled often: it also checks timeouts and connections. A negative
 * number says that the controller has ended for good and that nothing is in flight. After a
 * completion that failed, nvmf_error_text() has the text of the last failure.
 */
int nvmf_poll(struct nvmf_queue *queue, struct nvmf_completion *completions, size_t max);

/*
 * Polls until there are at least min completions, nothing is in flight, or the time is over
 * (nanoseconds; negative for no limit). It spins for 50 microseconds and sleeps then.
 */
int nvmf_wait(struct nvmf_queue *queue, struct nvmf_completion *completions, size_t min, size_t max,
	      int64_t timeout_ns);

/*
 * Makes nvmf_wait() spin without end. The calling thread does nothing but drive this queue, and is one
 * of `threads` that do so on this machine: if they are as many as there are processors, it enters the
 * scheduling class SCHED_IDLE for good, so that it leaves them to what completes its commands; if they
 * are more, nvmf_wait() sleeps as before.
 */
int nvmf_queue_own_thread(struct nvmf_queue *queue, uint32_t threads);

/* Number of commands that can be queued now. */
int nvmf_queue_room(struct nvmf_queue *queue);

/*
 * To sleep in an event loop: nvmf_arm() returns 1 if the caller may sleep until the descriptor is
 * readable and polls then, 0 if there are completions to poll for now. The descriptor stays the same,
 * is readable at least every 100 ms when armed, and is not to be read or closed.
 */
int nvmf_queue_fd(struct nvmf_queue *queue);
int nvmf_arm(struct nvmf_queue *queue);

struct nvmf_operation {
	uint64_t completed;
	uint64_t failed;
	uint64_t retried; /* times that a command was sent again after a status that allows it */
	uint64_t bytes;
	uint64_t latency_min_ns;
	uint64_t latency_mean_ns;
	uint64_t latency_p50_ns;
	uint64_t latency_p99_ns;
	uint64_t latency_p999_ns;
	uint64_t latency_max_ns;
};

struct nvmf_statistics {
	uint64_t size;
	struct nvmf_operation read;
	struct nvmf_operation write;
	struct nvmf_operation other;
	uint64_t doorbells;
	uint64_t completions;
	uint64_t empty_polls;
};

/* Statistics of the queue since the connect; vectored commands count once for each segment. */
int nvmf_statistics_get(struct nvmf_queue *queue, struct nvmf_statistics *statistics);

#ifdef __cplusplus
}
#endif

#endif
