//! Scenarios in virtual time: moments that random runs seldom meet.

use std::time::Duration;

use rdma_fabric::{Fault, Host, Objects, Point};
use rdma_host::{
    Command, CommandCompletion, ConnectOptions, Controller, ExecutionStatus, HostIdentity,
    Namespace, Poller, ReconnectOptions,
    config::FENCE_PROBE_TIMEOUT,
    wire::{ControllerId, NamespaceId},
};
use tokio::sync::mpsc;

use crate::{
    executor::World,
    faults::CommandFault,
    history::fill,
    target::{ADDRESS, BLOCK, HOST_ID, Limits, ModelTarget, SUBSYSTEM},
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
        self.poller.ring_doorbells().expect("it reconnects");
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
        done
    }

    /// Polls until some commands have succeeded.
    async fn succeed(&mut self, count: usize) {
        let done = self.complete(count).await;
        assert!(done.iter().all(|done| done.outcome.is_ok()), "{done:?}");
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
        target.change(|target| {
            target.executions_max = 9;
            target.io_timeout = Duration::from_millis(300);
            target.limits = Some(LIMITS);
        });
        let connecting = Controller::connect_over(&host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
        let poller = pollers.pop().expect("one was asked for");
        let connected = scenario(Connected { world: own, target, controller, poller }).await;
        let Connected { world, target, controller, poller } = connected;
        drop(poller);
        controller.shutdown().await;
        end(&world, &target).await;
    });
    check_objects(&world);
}

/// Limits of two queues with three commands each, and transfers of 16 blocks.
const LIMITS: Limits = Limits {
    entries: 4,
    queues: 2,
    mdts: 1,
    traffic_keeps_alive: false,
    takes_capsule_data: false,
};

/// Connected controller that drives its pollers itself.
struct Driven {
    world: World,
    target: ModelTarget,
    controller: Controller<Host>,
    namespace: Namespace,
}

impl Driven {
    async fn sleep(&self, milliseconds: u64) {
        self.world.sleep(Duration::from_millis(milliseconds)).await;
    }
}

/// Runs a scenario of the async API.
fn run_async<F>(limits: Limits, scenario: impl FnOnce(Driven) -> F + Send + 'static)
where
    F: Future<Output = Driven> + Send,
{
    let world = World::new(1);
    let target = ModelTarget::new(&world);
    let host = world.fabric().host("host", "10.0.0.1".parse().expect("an address"));
    let own = world.clone();
    world.run(async move {
        own.spawn(target.clone().run());
        target.change(|target| {
            target.executions_max = 9;
            target.limits = Some(limits);
        });
        let reconnect = ReconnectOptions::default()
            .delay(Duration::from_millis(40))
            .loss_timeout(Some(Duration::from_secs(1)));
        let options = options().io_queues(2).io_timeout(Duration::from_secs(30));
        let connecting = Controller::connect_over(&host, &options.reconnect(reconnect));
        let controller = connecting.await.expect("an honest target");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let driven = scenario(Driven { world: own, target, controller, namespace }).await;
        let Driven { world, target, controller, namespace } = driven;
        drop(namespace);
        controller.shutdown().await;
        end(&world, &target).await;
    });
    check_objects(&world);
}

/// Ends a target, and all that is in transit.
async fn end(world: &World, target: &ModelTarget) {
    target.close();
    world.sleep(Duration::from_secs(120)).await;
    let violations = target.change(|target| std::mem::take(&mut target.violations));
    assert_eq!(violations, Vec::<String>::new());
}

fn check_objects(world: &World) {
    world.fabric().run_until_idle();
    assert_eq!(world.fabric().objects(), Objects::default());
}

#[test]
fn of_several_parts_the_execution_is_unknown_if_one_fails() {
    run_async(LIMITS, async |driven| {
        driven.target.change(|target| {
            target.add_fault(CommandFault::SlowAnswer(Duration::from_millis(1)));
            target.add_fault(CommandFault::Status(0x4081));
        });
        let buffer = driven.controller.allocate(24 * BLOCK).expect("memory");
        let failed = driven.namespace.write(0, buffer).await.expect_err("a part has failed");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        driven
    });
}

/// Loses a connection with six writes that were executed, the first of some blocks, and then one
/// with a single queue, in which they do not find room, for good. Returns what each caller is told.
async fn lose_twice(driven: &Driven, blocks: usize) -> Vec<ExecutionStatus> {
    let Driven { world, target, controller, namespace } = driven;
    target.change(|target| (0..32).for_each(|_| target.add_fault(CommandFault::NoAnswer)));
    let (sender, mut ended) = mpsc::unbounded_channel();
    for lba in 0..6 {
        let (namespace, sender) = (namespace.clone(), sender.clone());
        let blocks = if lba == 0 { blocks } else { 1 };
        let buffer = controller.allocate(blocks * BLOCK).expect("memory");
        world.spawn(async move {
            let failed = namespace.write(lba, buffer).await.expect_err("no answer");
            let _ = sender.send(failed.execution);
        });
    }
    driven.sleep(10).await;
    target.change(|target| {
        target.limits = Some(Limits { queues: 1, ..LIMITS });
        target.restart();
    });
    driven.sleep(200).await;
    target.change(|target| {
        target.restart();
        target.set_listening(false);
    });
    drop(sender);
    let mut told = Vec::new();
    while let Some(execution) = ended.recv().await {
        told.push(execution);
    }
    told
}

#[test]
fn a_command_that_moves_to_another_poller_was_sent() {
    run_async(LIMITS, async |driven| {
        assert_eq!(lose_twice(&driven, 1).await, [ExecutionStatus::Unknown; 6]);
        driven
    });
}

#[test]
fn a_command_that_is_split_again_was_sent() {
    run_async(Limits { mdts: 2, ..LIMITS }, async |driven| {
        assert_eq!(lose_twice(&driven, 24).await, [ExecutionStatus::Unknown; 6]);
        driven
    });
}

#[test]
fn a_write_is_not_sent_again_to_another_namespace() {
    run_async(LIMITS, async |driven| {
        driven.target.change(|target| {
            target.add_fault(CommandFault::Disconnect);
            target.nguid = 0xaa;
        });
        let buffer = driven.controller.allocate(BLOCK).expect("memory");
        driven.namespace.write(0, buffer).await.expect_err("it is another namespace");
        assert!(driven.target.change(|target| target.applied.is_empty()));
        driven
    });
}

#[test]
fn an_answer_of_a_target_that_broke_the_protocol_is_not_believed() {
    run(async |mut connected| {
        connected.target.change(|target| {
            target.add_fault(CommandFault::ShortResponse);
            target.add_fault(CommandFault::SlowAnswer(Duration::from_millis(1)));
        });
        // The second answer comes while the queue is drained because of the first.
        let late = Fault::Delay(Duration::from_millis(12));
        connected.world.fabric().at(Point::completion("host", 2), late);
        connected.write(0);
        connected.write(1);
        connected.sleep(10).await;
        connected.succeed(2).await;
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
        connected.succeed(1).await;
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
fn an_abort_names_a_command_that_was_waited_for() {
    run(async |mut connected| {
        // Sent again in the same slot, the command is the same by its id.
        connected.target.change(|target| {
            target.add_fault(CommandFault::NoAnswer);
            target.add_fault(CommandFault::NoAnswer);
        });
        connected.write(0);
        connected.succeed(1).await;
        let aborts = connected.target.change(|target| target.counts.get("aborts").copied());
        assert_eq!(aborts, Some(2));
        connected
    });
}

#[test]
fn the_time_without_a_connection_is_not_the_age_of_a_command() {
    run(async |mut connected| {
        connected.target.change(|target| {
            target.restart();
            target.set_listening(false);
        });
        while connected.poller.is_connected() {
            connected.poller.ready(Duration::from_secs(1)).await.expect("it reconnects");
        }
        connected.write(0);
        connected.sleep(2_000).await;
        connected.target.change(|target| {
            target.set_listening(true);
            target.add_fault(CommandFault::SlowAnswer(Duration::from_millis(100)));
        });
        connected.succeed(1).await;
        let aborts = connected.target.change(|target| target.counts.get("aborts").copied());
        assert_eq!(aborts, None);
        connected
    });
}

#[test]
fn queues_that_no_poller_has_taken_are_closed_with_their_connection() {
    run(async |connected| {
        for _ in 0..2 {
            connected.target.change(|target| target.restart());
            connected.sleep(200).await;
        }
        connected
    });
}

#[test]
fn commands_of_the_admin_queue_do_not_wait_for_a_question_about_another_controller() {
    run_async(LIMITS, async |driven| {
        let Driven { world, controller, .. } = &driven;
        world.fabric().at(Point::connect("host", 1), Fault::Drop);
        let begun = world.now();
        let asked = controller.until_gone(ControllerId(0x4711), Duration::from_secs(10));
        let read = async {
            driven.sleep(100).await;
            controller.identify_namespace(NamespaceId(1)).await.expect("the target answers");
            world.now() - begun
        };
        let (is_gone, read) = tokio::join!(asked, read);
        assert!(is_gone, "the target knows no such controller");
        assert!(read < FENCE_PROBE_TIMEOUT, "{read:?}");
        driven
    });
}
