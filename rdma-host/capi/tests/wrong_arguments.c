/* Every function with null, with numbers that are no handles, and with handles of other kinds. */
#include <errno.h>
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
	const char *text = nvmf_error_text();

	if (result == expected && (result >= 0 || (strlen(text) > 0 && nvmf_error_class() > 0)))
		return;
	fprintf(stderr, "%s: %d (%s), expected %d\n", what, result, text, expected);
	failures++;
}

#define EXPECT(call, expected) expect(#call, call, expected)

/* A handle that is none. */
static void every_function_with(void *wrong)
{
	struct nvmf_controller_info info = { .size = sizeof(info) };
	struct nvmf_namespace ns = { .size = sizeof(ns) };
	struct nvmf_event event = { .size = sizeof(event) };
	struct nvmf_statistics statistics = { .size = sizeof(statistics) };
	struct nvmf_completion completions[2];
	struct nvmf_controller *controller = NULL;
	struct nvmf_memory *memory = NULL;
	struct nvmf_queue *queue = NULL;
	struct nvmf_range range = { .lba = 0, .blocks = 1 };
	struct nvmf_segment segment = { .memory = wrong, .blocks = 1 };
	void *address;
	uint32_t nsids[2];
	char bytes[64];

	EXPECT(nvmf_options_set(wrong, "nqn", "nqn.x"), -EBADF);
	EXPECT(nvmf_options_free(wrong), -EBADF);
	EXPECT(nvmf_connect(wrong, &controller), -EBADF);
	EXPECT(nvmf_disconnect(wrong), -EBADF);
	EXPECT(nvmf_reset(wrong), -EBADF);
	EXPECT(nvmf_controller_get(wrong, &info), -EBADF);
	EXPECT(nvmf_namespace_list(wrong, nsids, 2), -EBADF);
	EXPECT(nvmf_namespace_get(wrong, 1, &ns), -EBADF);
	EXPECT(nvmf_event_next(wrong, &event), -EBADF);
	EXPECT(nvmf_event_fd(wrong), -EBADF);
	EXPECT(nvmf_memory_allocate(wrong, 4096, &memory, &address), -EBADF);
	EXPECT(nvmf_memory_register(wrong, bytes, sizeof(bytes), &memory), -EBADF);
	EXPECT(nvmf_memory_free(wrong), -EBADF);
	EXPECT(nvmf_queue_get(wrong, 0, &queue), -EBADF);
	EXPECT(nvmf_read(wrong, 1, 0, 1, wrong, 0, 1), -EBADF);
	EXPECT(nvmf_write(wrong, 1, 0, 1, wrong, 0, 0, 1), -EBADF);
	EXPECT(nvmf_readv(wrong, 1, 0, &segment, 1, 1), -EBADF);
	EXPECT(nvmf_writev(wrong, 1, 0, &segment, 1, 0, 1), -EBADF);
	EXPECT(nvmf_flush(wrong, 1, 1), -EBADF);
	EXPECT(nvmf_write_zeroes(wrong, 1, 0, 1, 0, 1), -EBADF);
	EXPECT(nvmf_dsm(wrong, 1, &range, 1, 1), -EBADF);
	EXPECT(nvmf_submit(wrong), -EBADF);
	EXPECT(nvmf_poll(wrong, completions, 2), -EBADF);
	EXPECT(nvmf_wait(wrong, completions, 1, 2, 0), -EBADF);
	EXPECT(nvmf_queue_own_thread(wrong, 1), -EBADF);
	EXPECT(nvmf_queue_room(wrong), -EBADF);
	EXPECT(nvmf_queue_fd(wrong), -EBADF);
	EXPECT(nvmf_arm(wrong), -EBADF);
	EXPECT(nvmf_statistics_get(wrong, &statistics), -EBADF);
}

static void options(void)
{
	struct nvmf_options *options = NULL, *more[300];
	struct nvmf_controller *controller = NULL;
	int status, count = 0;
	pid_t child;

	EXPECT(nvmf_options_create("nvmf-rdma://127.0.0.1/nqn.x", NULL), -EFAULT);
	EXPECT(nvmf_options_create(NULL, &options), 0);
	EXPECT(nvmf_options_set(options, NULL, "1"), -EFAULT);
	EXPECT(nvmf_options_set(options, "queue-size", NULL), -EFAULT);
	EXPECT(nvmf_options_set(options, "queue-size", "1"), -EINVAL);
	EXPECT(nvmf_options_set(options, "queue-sizes", "8"), -EINVAL);
	EXPECT(nvmf_options_set(options, "queue-size", "\xff"), -EINVAL);
	EXPECT(nvmf_options_set(options, "queue-size", "8"), 0);
	EXPECT(nvmf_connect(options, NULL), -EFAULT);
	EXPECT(nvmf_connect(options, &controller), -EINVAL);
	if (!strstr(nvmf_error_text(), "no target address"))
		expect(nvmf_error_text(), -1, 0);
	EXPECT(nvmf_options_set(options, "traddr", "127.0.0.1"), 0);
	EXPECT(nvmf_options_set(options, "nqn", "nqn.x"), 0);
	EXPECT(nvmf_options_set(options, "dhchap-secret-file", "/nothing/here"), 0);
	EXPECT(nvmf_connect(options, &controller), -EINVAL);
	/* A handle of one kind is none of another. */
	every_function_with((char *)options + 1);
	EXPECT(nvmf_disconnect((struct nvmf_controller *)(void *)options), -EBADF);
	child = fork();
	if (child == 0)
		_exit(nvmf_options_set(options, "queue-size", "9") == 0 ? 0 : 1);
	waitpid(child, &status, 0);
	EXPECT(nvmf_options_free(options), 0);
	EXPECT(nvmf_options_free(options), -EBADF);
	while (count < 300 && nvmf_options_create(NULL, &more[count]) == 0)
		count++;
	EXPECT(count, 256);
	EXPECT(nvmf_options_create(NULL, &more[299]), -EMFILE);
	while (count > 0)
		EXPECT(nvmf_options_free(more[--count]), 0);
}

int main(void)
{
	char object[256] = { 0 };

	if (strlen(nvmf_version()) == 0 || strlen(nvmf_error_text()) != 0 || nvmf_error_class() != 0)
		failures++;
	every_function_with(NULL);
	every_function_with((void *)(uintptr_t)1);
	every_function_with((void *)UINTPTR_MAX);
	every_function_with(object);
	for (int i = 0; i < 200; i++)
		every_function_with((void *)(uintptr_t)((uint64_t)rand() << 32 ^ (uint64_t)rand()));
	options();
	return failures > 0;
}
