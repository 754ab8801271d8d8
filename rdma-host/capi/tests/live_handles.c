/* Wrong arguments to a controller that is connected: live_handles TARGET NSID. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nvmf-rdma.h>

static int failures;

static void expect(const char *what, int result, int expected)
{
	if (result == expected)
		return;
	fprintf(stderr, "%s: %d (%s), expected %d\n", what, result, nvmf_error_text(), expected);
	failures++;
}

#define EXPECT(call, expected) expect(#call, call, expected)

static struct nvmf_queue *shared_queue;
static atomic_int busy, foreign_number;

/* Uses a queue while another thread does, until that was refused. */
static void *other_thread(void *argument)
{
	struct nvmf_completion completion;

	(void)argument;
	while (!atomic_load(&busy)) {
		int result = nvmf_poll(shared_queue, &completion, 1);

		if (result == -EBUSY)
			atomic_store(&busy, 1);
		else if (result < 0)
			atomic_store(&foreign_number, result);
	}
	return NULL;
}

static struct nvmf_controller *connect_to(const char *target)
{
	struct nvmf_controller *controller = NULL;
	struct nvmf_options *options;

	EXPECT(nvmf_options_create(target, &options), 0);
	EXPECT(nvmf_options_set(options, "nr-io-queues", "2"), 0);
	EXPECT(nvmf_options_set(options, "queue-size", "16"), 0);
	EXPECT(nvmf_connect(options, &controller), 0);
	EXPECT(nvmf_options_free(options), 0);
	return controller;
}

static void wrong_memory(struct nvmf_queue *queue, struct nvmf_controller *controller,
			 struct nvmf_controller *other, uint32_t nsid, uint32_t block_size)
{
	struct nvmf_completion completion;
	struct nvmf_memory *memory, *foreign, *freed;
	void *address, *elsewhere;

	EXPECT(nvmf_memory_allocate(controller, 0, &memory, &address), -ENOTCONN);
	EXPECT(nvmf_memory_register(controller, NULL, 64, &memory), -EFAULT);
	EXPECT(nvmf_memory_register(controller, &memory, SIZE_MAX, &memory), -EINVAL);
	EXPECT(nvmf_memory_allocate(controller, 64 * block_size, &memory, &address), 0);
	EXPECT(nvmf_memory_allocate(other, block_size, &foreign, &elsewhere), 0);
	EXPECT(nvmf_memory_allocate(controller, block_size, &freed, &elsewhere), 0);
	EXPECT(nvmf_memory_free(freed), 0);
	EXPECT(nvmf_memory_free(freed), -EBADF);
	EXPECT(nvmf_read(queue, nsid, 0, 1, freed, 0, 1), -EBADF);
	EXPECT(nvmf_read(queue, nsid, 0, 1, foreign, 0, 1), -EINVAL);
	EXPECT(nvmf_read(queue, nsid, 0, 1, memory, 63 * (uint64_t)block_size + 1, 1), -EINVAL);
	EXPECT(nvmf_read(queue, nsid, 0, 1, memory, UINT64_MAX, 1), -EINVAL);
	EXPECT(nvmf_read(queue, nsid, 0, 65, memory, 0, 1), -EINVAL);
	EXPECT(nvmf_read(queue, nsid, 0, 0, memory, 0, 1), -EINVAL);
	EXPECT(nvmf_read(queue, nsid, 0, UINT32_MAX, memory, 0, 1), -EINVAL);
	EXPECT(nvmf_read(queue, nsid + 1, 0, 1, memory, 0, 1), -EINVAL); /* not identified */
	EXPECT(nvmf_write(queue, nsid, 0, 1, memory, 0, 8, 1), -EINVAL);
	EXPECT(nvmf_dsm(queue, nsid, NULL, 1, 1), -EFAULT);
	EXPECT(nvmf_dsm(queue, nsid, NULL, 0, 1), -EINVAL);
	EXPECT(nvmf_readv(queue, nsid, 0, NULL, 0, 1), -EINVAL);
	EXPECT(nvmf_poll(queue, NULL, 1), -EFAULT);
	EXPECT(nvmf_poll(queue, NULL, 0), 0);

	/* Past the end of the namespace: the target says so, for the command. */
	EXPECT(nvmf_read(queue, nsid, UINT64_MAX - 8, 1, memory, 0, UINT64_MAX), 0);
	EXPECT(nvmf_memory_free(memory), -EBUSY);
	EXPECT(nvmf_wait(queue, &completion, 1, 1, -1), 1);
	EXPECT(completion.result, -EIO);
	if (completion.user != UINT64_MAX || completion.status == 0 ||
	    completion.execution != NVMF_ANSWERED)
		expect("completion", 0, 1);
	EXPECT(nvmf_wait(queue, &completion, 1, 1, -1), 0); /* nothing is in flight */

	/* As many as fit: 15 in flight in a queue of 16 entries. */
	for (unsigned i = 0; i < 15; i++)
		EXPECT(nvmf_read(queue, nsid, i, 1, memory, 0, i), 0);
	EXPECT(nvmf_queue_room(queue), 0);
	EXPECT(nvmf_read(queue, nsid, 0, 1, memory, 0, 15), -EAGAIN);
	for (unsigned i = 0; i < 15; i++)
		EXPECT(nvmf_wait(queue, &completion, 1, 1, -1), 1);
	EXPECT(nvmf_memory_free(memory), 0);
	EXPECT(nvmf_memory_free(foreign), 0);
}

/* A program of a version that knew less. */
static void smaller_structures(struct nvmf_controller *controller, uint32_t nsid)
{
	union {
		struct nvmf_namespace ns;
		unsigned char bytes[sizeof(struct nvmf_namespace)];
	} place;

	memset(&place, 0xaa, sizeof(place));
	place.ns.size = 16;
	EXPECT(nvmf_namespace_get(controller, nsid, &place.ns), 0);
	EXPECT((int)place.ns.size, 16);
	for (size_t i = 16; i < sizeof(place); i++)
		EXPECT(place.bytes[i], 0xaa);
	place.ns.size = 7;
	EXPECT(nvmf_namespace_get(controller, nsid, &place.ns), -EINVAL);
}

int main(int argc, char **argv)
{
	struct nvmf_namespace ns = { .size = sizeof(ns) };
	struct nvmf_controller_info info = { .size = sizeof(info) };
	struct nvmf_controller *controller, *other;
	struct nvmf_completion completion;
	struct nvmf_queue *queue;
	uint32_t nsids[1], nsid;
	pthread_t thread;
	int status = 0;
	pid_t child;

	if (argc != 3)
		return 2;
	nsid = (uint32_t)strtoul(argv[2], NULL, 10);
	controller = connect_to(argv[1]);
	other = connect_to(argv[1]);
	if (failures)
		return 1;
	EXPECT(nvmf_controller_get(controller, &info), 0);
	EXPECT((int)info.state, NVMF_LIVE);
	EXPECT((int)info.io_queues, 2);
	EXPECT(nvmf_namespace_list(controller, nsids, 1) >= 1, 1);
	EXPECT(nvmf_namespace_get(controller, 4711, &ns), -EINVAL);
	EXPECT(nvmf_namespace_get(controller, nsid, &ns), 0);
	EXPECT(nvmf_queue_get(controller, 2, &queue), -EINVAL);
	EXPECT(nvmf_queue_get(controller, 0, &queue), 0);
	wrong_memory(queue, controller, other, nsid, ns.block_size);
	smaller_structures(controller, nsid);

	shared_queue = queue;
	pthread_create(&thread, NULL, other_thread, NULL);
	while (!atomic_load(&busy)) {
		int result = nvmf_poll(queue, &completion, 1);

		if (result == -EBUSY)
			atomic_store(&busy, 1);
		else if (result < 0)
			atomic_store(&foreign_number, result);
	}
	pthread_join(thread, NULL);
	EXPECT(atomic_load(&foreign_number), 0);

	child = fork();
	if (child == 0)
		_exit(nvmf_poll(queue, &completion, 1) == -EBADF ? 0 : 1);
	waitpid(child, &status, 0);
	EXPECT(status, 0);
	EXPECT(nvmf_poll(queue, &completion, 1), 0);

	EXPECT(nvmf_disconnect(controller), 0);
	EXPECT(nvmf_disconnect(controller), -EBADF);
	EXPECT(nvmf_poll(queue, &completion, 1), -EBADF);
	EXPECT(nvmf_disconnect(other), 0);
	return failures > 0;
}
