// Reads blocks at random in C++, asleep in poll(2) between completions, and prints the events of the
// controller: event_loop TARGET NSID READS [NAME=VALUE]...
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <vector>

#include <nvmf-rdma.h>

namespace {

struct Error : std::runtime_error {
	explicit Error(const std::string &what) : std::runtime_error(what + ": " + nvmf_error_text()) {}
};

int check(int result, const char *what)
{
	if (result < 0)
		throw Error(what);
	return result;
}

class Controller {
      public:
	Controller(const char *target, const std::vector<std::string> &pairs)
	{
		nvmf_options *options = nullptr;
		check(nvmf_options_create(target, &options), "target");
		for (const std::string &pair : pairs) {
			const std::size_t at = pair.find('=');
			const std::string name = pair.substr(0, at);
			const std::string value = at == std::string::npos ? "true" : pair.substr(at + 1);
			check(nvmf_options_set(options, name.c_str(), value.c_str()), name.c_str());
		}
		const int result = nvmf_connect(options, &handle_);
		nvmf_options_free(options);
		if (result < 0)
			throw Error(target);
	}
	Controller(const Controller &) = delete;
	Controller &operator=(const Controller &) = delete;
	~Controller() { nvmf_disconnect(handle_); }
	nvmf_controller *get() const { return handle_; }

      private:
	nvmf_controller *handle_ = nullptr;
};

void print_events(const Controller &controller)
{
	nvmf_event event{};
	event.size = sizeof(event);
	while (check(nvmf_event_next(controller.get(), &event), "events") == 1)
		std::cout << event.text << std::endl; // at once, also to a pipe
}

void read(const Controller &controller, std::uint32_t nsid, std::uint64_t reads)
{
	constexpr std::uint64_t depth = 16;
	nvmf_namespace ns{};
	ns.size = sizeof(ns);
	check(nvmf_namespace_get(controller.get(), nsid, &ns), "namespace");
	nvmf_queue *queue = nullptr;
	check(nvmf_queue_get(controller.get(), 0, &queue), "queue");
	nvmf_memory *memory = nullptr;
	void *address = nullptr;
	check(nvmf_memory_allocate(controller.get(), ns.block_size * depth, &memory, &address), "memory");

	std::vector<std::uint64_t> free;
	for (std::uint64_t i = 0; i < depth; i++)
		free.push_back(i);
	std::vector<nvmf_completion> completions(depth);
	std::uint64_t submitted = 0, completed = 0, sleeps = 0;
	while (completed < reads) {
		for (; submitted < reads && !free.empty(); submitted++) {
			const std::uint64_t slot = free.back(), lba = submitted * 2654435761U % ns.blocks;
			check(nvmf_read(queue, nsid, lba, 1, memory, slot * ns.block_size, slot), "read");
			free.pop_back();
		}
		const int count = check(nvmf_poll(queue, completions.data(), depth), "poll");
		for (int i = 0; i < count; i++) {
			if (completions[static_cast<std::size_t>(i)].result != 0)
				throw Error("read");
			free.push_back(completions[static_cast<std::size_t>(i)].user);
			completed++;
		}
		if (count == 0 && check(nvmf_arm(queue), "arm") == 1) {
			pollfd waits[2] = {};
			waits[0] = {check(nvmf_queue_fd(queue), "descriptor"), POLLIN, 0};
			waits[1] = {check(nvmf_event_fd(controller.get()), "descriptor"), POLLIN, 0};
			if (poll(waits, 2, -1) < 0 && errno != EINTR)
				throw std::runtime_error("poll");
			sleeps++;
			print_events(controller);
		}
	}
	std::cout << completed << " reads, asleep " << (sleeps > 0 ? "between some" : "never") << '\n';
}

} // namespace

int main(int argc, char **argv)
{
	if (argc < 4) {
		std::cerr << "usage: event_loop TARGET NSID READS [NAME=VALUE]...\n";
		return 2;
	}
	try {
		std::vector<std::string> pairs(argv + 4, argv + argc);
		pairs.emplace_back("nr-io-queues=1");
		const Controller controller(argv[1], pairs);
		print_events(controller);
		read(controller, static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10)),
		     std::strtoull(argv[3], nullptr, 10));
	} catch (const std::exception &error) {
		std::cerr << "event_loop: " << error.what() << '\n';
		return nvmf_error_class() ? nvmf_error_class() : 1;
	}
	return 0;
}
