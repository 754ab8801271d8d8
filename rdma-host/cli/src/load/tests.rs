use clap::Parser;
use rdma_fabric::Fabric;
use rdma_host::wire::NamespaceId;
use scripted_target::{Hook, Target};

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    load: LoadArguments,
}

/// Reads of one thread.
struct Reads {
    left: u64,
}

impl Workload for Reads {
    fn next(&mut self, buffer: Buffer) -> Result<Command, Buffer> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(Command::read(NamespaceId(1), left, 1, buffer))
            }
            None => Err(buffer),
        }
    }

    fn complete(&mut self, completion: CommandCompletion) -> Result<Buffer, Failure> {
        completed_buffer(completion, "Read", || "of the test".to_owned())
    }

    fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// Target whose namespace has a UUID.
fn target(fabric: &Fabric, name: &str, address: &str) -> Target {
    let hook: Hook = Box::new(|seen, answer| {
        if (seen.queue, seen.sqe[0], seen.sqe[40]) == (0, 0x06, 0x03) {
            (answer.data[0], answer.data[1]) = (3, 16);
            answer.data[4..20].fill(7);
        }
    });
    Target::at(fabric, name, address, hook)
}

#[test]
fn a_load_over_two_paths_tells_what_each_carried() {
    let fabric = Fabric::auto(1);
    let provider = fabric.host("host", [10, 0, 0, 1].into());
    let runtime = InterruptibleRuntime::new().unwrap();
    let _context = runtime.runtime.enter();
    let first = target(&fabric, "target", "10.0.0.2:4420");
    let second = target(&fabric, "second", "10.0.0.3:4420").on_medium_of(&first);
    runtime.runtime.spawn(first.run());
    runtime.runtime.spawn(second.run());
    let words = ["load", "nvmf-rdma://10.0.0.2,10.0.0.3/nqn.2026-11.org.soft-roce:scripted"];
    let options = ["--queues", "3", "--threads", "2", "--iodepth", "4"];
    let arguments = Program::parse_from(words.into_iter().chain(options)).load;
    let options = arguments.target.measurement_options().unwrap();
    let load = Load::connect(&provider, &runtime, &arguments, options, Some(512));
    let mut load = load.unwrap();
    assert_eq!(load.queues_of_threads().collect::<Vec<_>>(), [2, 1]);
    load.run(|_| Reads { left: 500 }).unwrap();
    let paths = load.path_reports();
    let addresses: Vec<_> = paths.iter().map(|path| path.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.2:4420", "10.0.0.3:4420"]);
    assert!(paths.iter().all(|path| path.commands == 500), "{paths:?}");
    let first = paths[0].describe();
    assert_eq!(first, "path 10.0.0.2:4420 live, namespace 1: 500 commands, 0 failed");
    load.close();
}

#[test]
fn the_default_size_of_a_command_is_one_that_the_controller_takes() {
    assert_eq!(block_bytes_default(512, 1 << 20), 64 << 10);
    assert_eq!(block_bytes_default(512, 8 << 10), 8 << 10);
    assert_eq!(block_bytes_default(4096, 10_000), 8192);
    assert_eq!(block_bytes_default(128 << 10, 1 << 20), 128 << 10);
}

#[test]
fn runnable_threads_are_read() {
    assert_eq!(runnable_threads("0.00 0.01 0.05 2/123 4567\n"), Some(2));
    assert_eq!(runnable_threads(""), None);
}
