/*
 * Writes a pattern to a namespace in C, reads it back and compares it:
 * read_write TARGET NSID [NAME=VALUE]...; each NAME is an option of a connection. Overwrites blocks.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nvmf-rdma.h>

enum { DEPTH = 8, BLOCKS = 8 };

static int fail(const char *what)
{
	fprintf(stderr, "read_write: %s: %s\n", what, nvmf_error_text());
	return nvmf_error_class();
}

/* Waits for all commands in flight; returns the number that failed. */
static int complete(struct nvmf_queue *queue, int in_flight)
{
	struct nvmf_completion completions[DEPTH];
	int failed = 0;

	while (in_flight > 0) {
		int count = nvmf_wait(queue, completions, 1, DEPTH, -1);

		if (count < 0)
			return in_flight;
		for (int i = 0; i < count; i++) {
			if (completions[i].result != 0) {
				fprintf(stderr, "read_write: command %" PRIu64 ": status 0x%x: %s\n",
					completions[i].user, completions[i].status, nvmf_error_text());
				failed++;
			}
		}
		in_flight -= count;
	}
	return failed;
}

static int run(struct nvmf_controller *controller, uint32_t nsid)
{
	struct nvmf_namespace ns = { .size = sizeof(ns) };
	struct nvmf_statistics statistics = { .size = sizeof(statistics) };
	struct nvmf_segment segments[2];
	struct nvmf_queue *queue;
	struct nvmf_memory *written, *read;
	void *to, *from;
	size_t bytes;

	if (nvmf_namespace_get(controller, nsid, &ns) || nvmf_queue_get(controller, 0, &queue))
		return fail("namespace");
	bytes = (size_t)ns.block_size * BLOCKS;
	from = malloc(bytes * DEPTH); /* memory of the program */
	if (!from || nvmf_memory_register(controller, from, bytes * DEPTH, &written) ||
	    nvmf_memory_allocate(controller, bytes * DEPTH, &read, &to))
		return fail("memory");
	for (size_t i = 0; i < bytes * DEPTH; i++)
		((unsigned char *)from)[i] = (unsigned char)(i * 7 + i / 251);

	for (unsigned i = 0; i < DEPTH; i++)
		if (nvmf_write(queue, nsid, i * BLOCKS, BLOCKS, written, i * bytes,
			       i == 0 ? NVMF_FORCE_UNIT_ACCESS : 0, i))
			return fail("write");
	if (complete(queue, DEPTH))
		return 1;
	if (nvmf_flush(queue, nsid, 100) || complete(queue, 1))
		return fail("flush");

	/* All but the last two transfers one by one; these as one command. */
	for (unsigned i = 0; i + 2 < DEPTH; i++)
		if (nvmf_read(queue, nsid, i * BLOCKS, BLOCKS, read, i * bytes, i))
			return fail("read");
	for (unsigned i = 0; i < 2; i++)
		segments[i] = (struct nvmf_segment){ .memory = read,
						     .offset = (DEPTH - 2 + i) * bytes,
						     .blocks = BLOCKS };
	if (nvmf_readv(queue, nsid, (DEPTH - 2) * BLOCKS, segments, 2, 50))
		return fail("readv");
	if (complete(queue, DEPTH - 1))
		return 1;
	if (memcmp(from, to, bytes * DEPTH) != 0) {
		fprintf(stderr, "read_write: the bytes read are not those written\n");
		return 5;
	}
	if (nvmf_write_zeroes(queue, nsid, 0, BLOCKS, 0, 60) || complete(queue, 1) ||
	    nvmf_read(queue, nsid, 0, BLOCKS, read, 0, 61) || complete(queue, 1))
		return fail("write zeroes");
	for (size_t i = 0; i < bytes; i++)
		if (((unsigned char *)to)[i] != 0)
			return 5;
	if (nvmf_dsm(queue, nsid, &(struct nvmf_range){ .lba = 0, .blocks = BLOCKS }, 1, 62) ||
	    complete(queue, 1))
		return fail("dsm");

	if (nvmf_statistics_get(queue, &statistics))
		return fail("statistics");
	printf("%" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64 " other commands\n",
	       statistics.read.completed, statistics.write.completed, statistics.other.completed);
	if (nvmf_memory_free(written))
		return fail("memory");
	free(from);
	return 0;
}

int main(int argc, char **argv)
{
	struct nvmf_options *options;
	struct nvmf_controller *controller;
	int outcome;

	if (argc < 3) {
		fprintf(stderr, "usage: read_write TARGET NSID [NAME=VALUE]...\n");
		return 2;
	}
	if (nvmf_options_create(argv[1], &options))
		return fail("options");
	for (int i = 3; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (value)
			*value++ = '\0';
		if (nvmf_options_set(options, argv[i], value ? value : "true"))
			return fail(argv[i]);
	}
	if (nvmf_connect(options, &controller))
		return fail(argv[1]);
	nvmf_options_free(options);
	outcome = run(controller, (uint32_t)strtoul(argv[2], NULL, 10));
	if (nvmf_disconnect(controller))
		return fail("disconnect");
	return outcome;
}
