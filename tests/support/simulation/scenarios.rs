//! Scenarios in virtual time: moments that random runs seldom meet.

use std::time::Duration;

use rdma_fabric::{Fault, Host, Point};
use rdma_host::{
    Command, CommandCompletion, ConnectOptions, Controller, HostIdentity, Poller, ReconnectOptions,
    wire::NamespaceId,
};

use crate::{
    executor::World,
    faults::CommandFault,
    history::fill,
    target::{ADDRESS, BLOCK, HOST_ID, ModelTarget, SUBSYSTEM},
};

/// Connected controller with one poller.
struct Connected {
    world: World,
    target: ModelTarget,
    controller: Controller<Host>,
    poller: Poller<Host>,
}

impl Connected {
    /// Submits a write of one block, whose stamp is its number plus one.
    fn write(&mut self, lba: u64) {
        let mut buffer = self.controller.allocate(BLOCK).expect("memory");
        let mut content = [0; BLOCK];
        fill(lba, lba + 1, &mut content);
        buffer.copy_in(0, &content);
        let command = Command::write(NamespaceId(1), lba, 1, buffer);
        self.poller.submit(command).expect("there is room");
        self.poller.flush().expect("it reconnects");
    }

    /// Number of times that the target has executed the write of a block.
    fn executions(&self, lba: u64) -> u32 {
        self.target.change(|target| target.applied.get(&(lba + 1, lba)).copied().unwrap_or(0))
    }

    /// Polls until some commands have completed.
    async fn complete(&mut self, count: usize) -> Vec<CommandCompletion> {
        let mut done = Vec::new();
        while done.len() < count {
            self.poller.poll().expect("it reconnects");
            done.extend(std::iter::from_fn(|| self.poller.take()));
            if done.len() < count {
                self.poller.ready(Duration::from_millis(1)).await.expect("it reconnects");
            }
        }
        assert!(done.iter().all(|done| done.outcome.is_ok()), "{done:?}");
        done
    }

    async fn sleep(&self, milliseconds: u64) {
        self.world.sleep(Duration::from_millis(milliseconds)).await;
    }
}

fn options() -> ConnectOptions {
    let host = HostIdentity::from_id(HOST_ID.parse().expect("a UUID"));
    let subsystem = SUBSYSTEM.parse().expect("an NQN");
    let reconnect = ReconnectOptions::default().delay(Duration::from_millis(40));
    ConnectOptions::new(ADDRESS.parse().expect("an address"), subsystem, host)
        .io_queues(1)
        .keep_alive(Duration::ZERO)
        .io_timeout(Duration::from_millis(300))
        .reconnect(reconnect)
}

/// Runs a scenario; the target must not have found a violation.
fn run<F>(scenario: impl FnOnce(Connected) -> F + Send + 'static)
where
    F: Future<Output = Connected> + Send,
{
    let world = World::new(1);
    let target = ModelTarget::new(&world);
    let host = world.fabric().host("host", "10.0.0.1".parse().expect("an address"));
    let own = world.clone();
    world.run(async move {
        own.spawn(target.clone().run());
        target.change(|target| target.executions_max = 9);
        target.change(|target| target.io_timeout = Duration::from_millis(300));
        let connecting = Controller::connect_over(&host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
        let poller = pollers.pop().expect("one was asked for");
        let connected = scenario(Connected { world: own, target, controller, poller }).await;
        let Connected { target, controller, poller, .. } = connected;
        drop(poller);
        controller.shutdown().await;
        let violations = target.change(|target| std::mem::take(&mut target.violations));
        assert_eq!(violations, Vec::<String>::new());
    });
}

#[test]
fn an_answer_of_a_target_that_broke_the_protocol_is_not_believed() {
    run(async |mut connected| {
        connected.target.change(|target| {
            target.add_fault(CommandFault::ShortResponse);
            target.add_fault(CommandFault::SlowAnswer(Duration::from_millis(1)));
        });
        connected.write(0);
        connected.write(1);
        // Both answers are there before the first is looked at.
        connected.sleep(10).await;
        connected.complete(2).await;
        assert_eq!([connected.executions(0), connected.executions(1)], [2, 2], "sent again");
        connected
    });
}

#[test]
fn a_command_that_was_answered_before_the_loss_is_not_sent_again() {
    run(async |mut connected| {
        for nth in [1, 2] {
            let late = Fault::Delay(Duration::from_millis(5));
            connected.world.fabric().at(Point::completion("host", nth), late);
        }
        connected.write(0);
        connected.sleep(1).await;
        assert_eq!(connected.executions(0), 1);
        connected.target.change(|target| target.restart());
        connected.complete(1).await;
        assert_eq!(connected.executions(0), 1, "its answer was on its way");
        connected
    });
}

#[test]
fn a_new_connection_wakes_a_poller_that_waits_for_it() {
    run(async |mut connected| {
        connected.target.change(|target| target.restart());
        while connected.poller.is_connected() {
            connected.poller.ready(Duration::from_secs(1)).await.expect("it reconnects");
        }
        let lost = connected.world.now();
        while !connected.poller.is_connected() {
            connected.poller.ready(Duration::from_secs(60)).await.expect("it reconnects");
        }
        assert!(connected.world.now() - lost < Duration::from_secs(10), "it slept to the end");
        connected
    });
}

#[test]
fn an_abort_belongs_to_the_connection_of_its_command() {
    run(async |mut connected| {
        connected.target.change(|target| target.add_fault(CommandFault::NoAnswer));
        connected.write(0);
        connected.sleep(400).await;
        // The admin queue is busy when the poller asks for the abort, and then the connection ends.
        connected.target.change(|target| target.pace = Duration::from_millis(10));
        let identify = connected.controller.identify_namespace(NamespaceId(1));
        let identified = connected.world.timeout(Duration::from_millis(1), identify).await;
        assert!(identified.is_none(), "the target takes longer");
        for _ in 0..200 {
            connected.poller.poll().expect("it reconnects");
        }
        connected.target.change(|target| target.restart());
        connected.complete(1).await;
        connected.sleep(100).await;
        connected
    });
}
