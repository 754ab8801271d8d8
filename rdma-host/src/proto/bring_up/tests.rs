//! Bring-up of a scripted controller: each test changes one response.

use std::time::Duration;

use auth::{Authenticated, Warning};
use uuid::Uuid;

use super::*;
use crate::{
    config::{ConnectOptions, Fence, FenceOptions, HostIdentity, TRANSFER_BYTES_DEFAULT},
    error::{Error, Incompatible},
    wire::{CmAcceptData, CommandId, ControllerId, Cqe, IntoBytes, QueueId, SglDescriptor, Status},
};

/// Controller that responds as Linux nvmet does, except for what a test changes.
struct Controller {
    capabilities: u64,
    ready_after: u32,
    fatal: bool,
    identify: Vec<u8>,
    queues: u32,
    receive_size: u16,
    connect: fn(QueueId) -> Cqe,
    log: Vec<String>,
}

impl Default for Controller {
    fn default() -> Self {
        let mut identify = vec![0; 4096];
        identify[77] = 5;
        identify[78..80].copy_from_slice(&[7, 0]);
        identify[320] = 10;
        identify[514] = 128;
        identify[536..540].copy_from_slice(&[0x05, 0, 0x10, 0]);
        identify[1792..1796].copy_from_slice(&[4, 1, 0, 0]);
        identify[1796] = 1;
        Self {
            capabilities: 0x0000_0020_0f01_007f,
            ready_after: 1,
            fatal: false,
            identify,
            queues: 0x0003_0003,
            receive_size: 128,
            connect: |_| success(7),
            log: Vec::new(),
        }
    }
}

fn success(result: u64) -> Cqe {
    Cqe::new(CommandId(0), Status::SUCCESS, result)
}

const AUTHENTICATED: Authenticated = Authenticated {
    hash: auth::HashId::SHA_256,
    group: auth::GroupId::NULL,
    controller_proved: false,
};

fn options() -> ConnectOptions {
    let address = "10.0.0.1:4420".parse().unwrap();
    let host = HostIdentity::from_id(Uuid::from_u128(1));
    let mut options = ConnectOptions::new(address, "nqn.test:s1".parse().unwrap(), host);
    options.io_queues = 2;
    options
}

impl Controller {
    fn run(&mut self, options: ConnectOptions) -> Result<Negotiated, Error> {
        self.drive(BringUp::new(options))
    }

    fn drive(&mut self, mut bring_up: BringUp) -> Result<Negotiated, Error> {
        for _ in 0..10_000 {
            if let Some(negotiated) = self.step(&mut bring_up)? {
                return Ok(negotiated);
            }
        }
        panic!("the bring-up does not end");
    }

    fn step(&mut self, bring_up: &mut BringUp) -> Result<Option<Negotiated>, Error> {
        match bring_up.action()? {
            BringUpAction::Live(negotiated) => return Ok(Some(*negotiated)),
            BringUpAction::ConnectIoQueues { queues, .. } => {
                let up: Result<Vec<_>, _> =
                    queues.into_iter().map(|queue| self.drive_queue(queue)).collect();
                bring_up.handle(&BringUpInput::IoQueuesReady(&up?))?;
            }
            BringUpAction::Wait(_) => bring_up.handle(&BringUpInput::TimerFired)?,
            BringUpAction::RdmaConnect(open) => {
                self.log.push(format!("open {} with {} entries", open.queue, open.entries));
                let accept = CmAcceptData { receive_size: self.receive_size };
                bring_up.handle(&BringUpInput::RdmaConnected(accept))?;
            }
            BringUpAction::Authenticate(queue) => {
                self.log.push(format!("authenticate {queue}"));
                bring_up.handle(&BringUpInput::Authenticated(AUTHENTICATED))?;
            }
            BringUpAction::Execute(execute) => {
                self.log.push(execute.name.to_owned());
                let response = self.answer(&execute);
                let data = match execute.transfer {
                    Transfer::FromController(_) => self.identify.as_slice(),
                    _ => &[],
                };
                bring_up.handle(&BringUpInput::Completed(response, data))?;
            }
        }
        Ok(None)
    }

    fn drive_queue(&mut self, mut bring_up: QueueBringUp) -> Result<QueueReady, Error> {
        loop {
            match bring_up.action()? {
                QueueBringUpAction::Ready(up) => return Ok(up),
                QueueBringUpAction::RdmaConnect(open) => {
                    self.log.push(format!("open {} with {} entries", open.queue, open.entries));
                    let accept = CmAcceptData { receive_size: self.receive_size };
                    bring_up.handle(&BringUpInput::RdmaConnected(accept))?;
                }
                QueueBringUpAction::Authenticate => {
                    self.log.push("authenticate".to_owned());
                    bring_up.handle(&BringUpInput::Authenticated(AUTHENTICATED))?;
                }
                QueueBringUpAction::Execute(execute) => {
                    self.log.push(execute.name.to_owned());
                    let response = self.answer(&execute);
                    bring_up.handle(&BringUpInput::Completed(response, &[]))?;
                }
            }
        }
    }

    fn answer(&mut self, execute: &Execute) -> Cqe {
        let bytes = execute.sqe.as_bytes();
        match (bytes[0], bytes[4], bytes[44]) {
            (0x7f, 0x01, _) => (self.connect)(execute.queue),
            (0x7f, 0x04, 0x00) => success(self.capabilities),
            (0x7f, 0x04, 0x08) => success(0x0001_0300),
            (0x7f, 0x04, 0x1c) if self.fatal => success(2),
            (0x7f, 0x04, 0x1c) if self.ready_after > 0 => {
                self.ready_after -= 1;
                success(0)
            }
            (0x7f, 0x04, 0x1c) => success(1),
            (0x7f, 0x00, _) | (0x06, ..) => success(0),
            (0x09, ..) => success(u64::from(self.queues)),
            other => panic!("unexpected command {other:?}"),
        }
    }
}

#[test]
fn steps_follow_the_order_of_the_specification() {
    let mut controller = Controller::default();
    let negotiated = controller.run(options()).unwrap();
    assert_eq!(
        controller.log,
        [
            "open 0 with 32 entries",
            "Connect on the admin queue",
            "reading CAP",
            "reading VS",
            "enabling the controller",
            "reading CSTS",
            "reading CSTS",
            "Identify Controller",
            "Set Features (Number of Queues)",
            "open 1 with 128 entries",
            "Connect on an I/O queue",
            "open 2 with 128 entries",
            "Connect on an I/O queue",
        ]
    );
    assert_eq!(negotiated.controller, ControllerId(7));
    assert_eq!((negotiated.io_queues, negotiated.queue_entries), (2, 128));
    assert_eq!(negotiated.transfer_bytes_max, 128 << 10);
    assert_eq!(negotiated.in_capsule_bytes, 4096);
}

#[test]
fn a_discovery_controller_is_live_after_identify() {
    // As reported by old nvmet: no capsule sizes, and here neither controller id nor command set.
    let mut controller =
        Controller { capabilities: 0x0000_0020_0f01_007f & !(1 << 37), ..Controller::default() };
    controller.identify[1792..1800].fill(0);
    controller.identify[78..80].fill(0);
    for kind in [0, 2] {
        controller.identify[111] = kind;
        let negotiated = controller.drive(BringUp::discovery(options())).unwrap();
        assert_eq!((negotiated.controller, negotiated.io_queues), (ControllerId(7), 0));
        assert_eq!(controller.log.last().unwrap(), "Identify Controller");
    }
    controller.identify[111] = 1;
    let error = controller.drive(BringUp::discovery(options())).unwrap_err();
    assert!(error.to_string().contains("type 1"), "{error}");
    assert_eq!(error.class(), crate::error::ErrorClass::Caller);
}

#[test]
fn takes_what_the_target_grants() {
    let mut controller = Controller { queues: 0x0000_0004, receive_size: 17, ..Default::default() };
    controller.capabilities = 0x0000_0020_0f01_003f;
    controller.identify[536..540].copy_from_slice(&[0x04, 0, 0, 0]);
    controller.identify[77] = 0;
    let negotiated = controller.run(options()).unwrap();
    assert_eq!((negotiated.io_queues, negotiated.queue_entries), (1, 17));
    assert_eq!(negotiated.transfer_bytes_max, TRANSFER_BYTES_DEFAULT);
    assert_eq!(negotiated.in_capsule_bytes, 0);
    controller.identify[514] = 9;
    assert_eq!(controller.run(options()).unwrap().queue_entries, 9);
}

#[test]
fn no_transfer_exceeds_a_descriptor() {
    let mut controller = Controller::default();
    for log2 in [12, 20, 63, 255] {
        controller.identify[77] = log2;
        let negotiated = controller.run(options()).unwrap();
        assert!(negotiated.transfer_bytes_max <= u64::from(SglDescriptor::KEYED_LENGTH_MAX));
        assert_eq!(negotiated.transfer_bytes_max % 4096, 0);
    }
}

#[test]
fn authentication_and_secure_channels_are_told_apart() {
    let asks = |connect| Controller { connect, ..Default::default() }.run(options()).unwrap_err();
    let admin = asks(|_| success(0x0002_0007));
    assert!(matches!(admin, Error::Authentication { queue: QueueId(0), .. }));
    let io = asks(|queue| success(if queue.is_admin() { 7 } else { 0x0002_0007 }));
    assert!(matches!(io, Error::Authentication { queue: QueueId(1), .. }));
    let channel = asks(|_| success(0x0004_0007));
    assert!(matches!(channel, Error::Incompatible(Incompatible::SecureChannel(_))));
}

fn with_secret(mut options: ConnectOptions) -> ConnectOptions {
    let secret = auth::Secret::from_bytes(auth::HashId::NONE, &[7; 32]).ok().unwrap();
    options.authentication.credentials = Some(auth::Credentials::one_way(secret).into());
    options
}

#[test]
fn every_queue_that_requires_it_is_authenticated_first() {
    let mut controller = Controller { connect: |_| success(0x0002_0007), ..Controller::default() };
    let negotiated = controller.run(with_secret(options())).unwrap();
    assert_eq!(negotiated.authenticated, [Some(AUTHENTICATED); 3]);
    // Warnings of `AUTHENTICATED`, without duplicates.
    assert_eq!(negotiated.warnings(), [Warning::NullGroup, Warning::OneWay]);
    for (index, line) in controller.log.iter().enumerate() {
        if line.starts_with("Connect") {
            assert!(controller.log[index + 1].starts_with("authenticate"), "{line}");
        }
    }
}

#[test]
fn a_target_that_requires_no_authentication_is_refused_unless_allowed() {
    let error = Controller::default().run(with_secret(options())).unwrap_err();
    assert!(matches!(error, Error::Authentication { queue: QueueId(0), .. }), "{error}");
    assert_eq!(error.class(), crate::error::ErrorClass::Access);
    let mut allowed = with_secret(options());
    allowed.authentication.policy = allowed.authentication.policy.danger_allow_unauthenticated();
    let negotiated = Controller::default().run(allowed).unwrap();
    assert_eq!(negotiated.authenticated, [None; 3]);
    assert_eq!(negotiated.warnings(), [Warning::NotRequired]);
    assert_eq!(Controller::default().run(options()).unwrap().warnings(), []);
}

#[test]
fn io_queues_are_authenticated_as_the_admin_queue_was_unless_allowed() {
    let mut partly = Controller {
        connect: |queue| success(if queue.0 == 2 { 7 } else { 0x0002_0007 }),
        ..Controller::default()
    };
    let negotiated = partly.run(with_secret(options())).unwrap();
    assert_eq!(negotiated.authenticated, [Some(AUTHENTICATED); 3]);
    let mut allowed = with_secret(options());
    allowed.authentication.policy = allowed.authentication.policy.danger_allow_unauthenticated();
    let negotiated = partly.run(allowed).unwrap();
    assert_eq!(negotiated.authenticated, [Some(AUTHENTICATED), Some(AUTHENTICATED), None]);
    let warnings = [Warning::NotRequired, Warning::NullGroup, Warning::OneWay];
    assert_eq!(negotiated.warnings(), warnings);
}

#[test]
fn refusals_keep_their_status() {
    let mut controller = Controller {
        connect: |_| Cqe::new(CommandId(0), Status(0x4182), 0x0001_0100),
        ..Default::default()
    };
    let error = controller.run(options()).unwrap_err();
    assert_eq!(error.class(), crate::error::ErrorClass::Access);
    assert!(error.to_string().contains("subsystem NQN"), "{error}");
}

#[test]
fn inconsistent_parameters_are_refused() {
    type Change = fn(&mut Controller);
    let cases: [(Change, &str); 14] = [
        (|c| c.capabilities = 0x0f01_007f, "NVM command set"),
        (|c| c.capabilities |= 1 << 48, "CAP.MPSMIN"),
        (|c| c.fatal = true, "CSTS.CFS"),
        (|c| c.ready_after = u32::MAX, "CSTS.RDY"),
        (|c| c.identify[536] = 0, "keyed SGL"),
        (|c| c.identify[1800] = 1, "ICDOFF"),
        (|c| c.identify[1792..1796].fill(0), "IOCCSZ"),
        (|c| c.identify[1796] = 0, "IORCSZ"),
        (|c| c.identify[78] = 8, "Connect granted"),
        (
            |c| c.connect = |queue| success(7 + u64::from(queue.0)),
            "queue 1 was answered by controller 8",
        ),
        (|c| c.receive_size = 1, "receives 1 commands at once (CRQSIZE); 4 are needed"),
        (|c| c.receive_size = 3, "receives 3 commands at once"),
        (|c| c.identify[320] = 0, "KAS"),
        (|c| c.connect = |_| success(0xffff), "which is none"),
    ];
    for (change, expected) in cases {
        let mut controller = Controller::default();
        change(&mut controller);
        let error = controller.run(options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn without_keep_alive_no_timer_is_needed() {
    let mut controller = Controller::default();
    controller.identify[320] = 0;
    controller.run(ConnectOptions { keep_alive: Duration::ZERO, ..options() }).unwrap();
}

/// Bring-ups of the I/O queues.
fn io_queues(controller: &mut Controller, bring_up: &mut BringUp) -> Vec<QueueBringUp> {
    loop {
        if let BringUpAction::ConnectIoQueues { queues, .. } = bring_up.action().unwrap() {
            return queues;
        }
        controller.step(bring_up).unwrap();
    }
}

#[test]
fn queues_come_up_in_any_order() {
    let mut bring_up = BringUp::new(options());
    let mut controller = Controller::default();
    let mut bring_ups: [_; 2] = io_queues(&mut controller, &mut bring_up).try_into().unwrap();
    bring_ups.reverse();
    assert_eq!(bring_ups.each_ref().map(QueueBringUp::id), [QueueId(2), QueueId(1)]);
    for receive_size in [128, 64] {
        // Both are connected before either continues; the second is granted fewer entries.
        let bring_up = &mut bring_ups[usize::from(receive_size == 64)];
        assert!(matches!(bring_up.action(), Ok(QueueBringUpAction::RdmaConnect(_))));
        bring_up.handle(&BringUpInput::RdmaConnected(CmAcceptData { receive_size })).unwrap();
    }
    let mut up = bring_ups.map(|bring_up| controller.drive_queue(bring_up).unwrap());
    up.reverse();
    assert_eq!(up.map(|queue| queue.entries), [64, 128]);
    bring_up.handle(&BringUpInput::IoQueuesReady(&up)).unwrap();
    let Ok(BringUpAction::Live(negotiated)) = bring_up.action() else { panic!("it is live") };
    assert_eq!((negotiated.queue_entries, negotiated.authenticated), (64, vec![None; 3]));
}

/// The ids of queues on a target of this model, with a write fence or without.
fn placed(place: u32, queues: u16, model: &str, fence: Fence) -> Vec<u16> {
    let mut controller = Controller { queues: 127 << 16 | 127, ..Controller::default() };
    controller.identify[24..24 + model.len()].copy_from_slice(model.as_bytes());
    let options = options().io_queues(queues).fence(FenceOptions::default().mode(fence));
    let negotiated = controller.drive(BringUp::new(options).queue_id_seed(place)).unwrap();
    let opened = |line: &&String| line.starts_with("open");
    assert_eq!(controller.log.iter().filter(opened).count(), usize::from(queues) + 1);
    for QueueId(id) in negotiated.queue_ids() {
        let line = format!("open {id} with");
        assert!(controller.log.iter().any(|opened| opened.starts_with(&line)), "{id}");
    }
    negotiated.queue_ids().map(|queue| queue.0).collect()
}

/// Controllers of Linux's target that are told apart by their queues.
#[test]
fn queue_ids_are_placed_where_they_are_a_proof() {
    let linux = |place, queues| placed(place, queues, "Linux", Fence::Proof);
    assert_eq!(linux(0, 2), [0, 1, 2]);
    assert_eq!(linux(1, 2), [0, 3, 4]);
    assert_eq!(linux(63, 2), [0, 127, 128]);
    assert_eq!(linux(64, 2), [0, 1, 2]);
    assert_eq!(linux(u32::MAX, 3), [0, 10, 11, 12]);
    assert_eq!(linux(1, 128).len(), 129);
    assert_eq!(placed(1, 2, "Linux", Fence::Off), [0, 1, 2]);
    assert_eq!(placed(1, 2, "another", Fence::Proof), [0, 1, 2]);
}

#[test]
fn a_queue_keeps_its_error() {
    let mut controller = Controller::default();
    let mut bring_up = io_queues(&mut controller, &mut BringUp::new(options())).swap_remove(0);
    let accept = BringUpInput::RdmaConnected(CmAcceptData { receive_size: 1 });
    bring_up.handle(&accept).unwrap();
    let refusal = Cqe::new(CommandId(0), Status(0x4182), 0);
    let first = bring_up.handle(&BringUpInput::Completed(refusal, &[])).unwrap_err().to_string();
    assert!(first.contains("queue 1"), "{first}");
    assert_eq!(bring_up.handle(&accept).unwrap_err().to_string(), first);
    assert_eq!(bring_up.action().unwrap_err().to_string(), first);
}

#[test]
fn an_error_is_kept_and_repeated() {
    let mut bring_up = BringUp::new(options());
    let accept = BringUpInput::RdmaConnected(CmAcceptData { receive_size: 32 });
    bring_up.handle(&accept).unwrap();
    let refusal = Cqe::new(CommandId(0), Status(0x4182), 0);
    let first = bring_up.handle(&BringUpInput::Completed(refusal, &[])).unwrap_err().to_string();
    assert_eq!(bring_up.handle(&accept).unwrap_err().to_string(), first);
    assert_eq!(bring_up.action().unwrap_err().to_string(), first);
}

#[test]
#[should_panic(expected = "the step is opening the admin queue, the input TimerFired")]
fn the_outcome_of_another_action_is_a_mistake() {
    let _ = BringUp::new(options()).handle(&BringUpInput::TimerFired);
}
