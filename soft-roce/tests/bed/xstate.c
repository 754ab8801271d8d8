/*
 * Makes the extended state of the processor look larger than it is, to a tracer: PTRACE_GETREGSET
 * gives XSTATE_BYTES (from the environment), PTRACE_SETREGSET wants exactly as many, as Linux does.
 * Preloaded into a User-Mode Linux kernel.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <elf.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static long (*real)(int, pid_t, void *, void *);
static size_t pretended, own;
static char area[1 << 16];

static void set_up(void)
{
	const char *bytes = getenv("XSTATE_BYTES");

	real = (long (*)(int, pid_t, void *, void *))dlsym(RTLD_NEXT, "ptrace");
	pretended = bytes ? strtoul(bytes, NULL, 10) : 0;
}

static long get(pid_t pid, struct iovec *to)
{
	struct iovec whole = { area, sizeof(area) };
	size_t length = to->iov_len < pretended ? to->iov_len : pretended;
	long result = real(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &whole);

	if (result != 0)
		return result;
	own = whole.iov_len;
	memset(area + own, 0, pretended - own);
	memcpy(to->iov_base, area, length);
	to->iov_len = length;
	return 0;
}

static long set(pid_t pid, struct iovec *from)
{
	struct iovec part = { from->iov_base, own };

	if (from->iov_len != pretended) {
		errno = EFAULT;
		return -1;
	}
	return real(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &part);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	pid_t pid;
	void *address, *data;

	if (!real)
		set_up();
	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (pretended && address == (void *)NT_X86_XSTATE) {
		if (request == PTRACE_GETREGSET)
			return get(pid, data);
		if (request == PTRACE_SETREGSET)
			return set(pid, data);
	}
	return real(request, pid, address, data);
}
