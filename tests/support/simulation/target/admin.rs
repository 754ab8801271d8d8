//! Associations, and the commands of the admin queue and of Fabrics.

use std::time::Duration;

use auth::{GroupId, HashId};
use scripted_target::{
    ReceivedCommand,
    authenticator::{Authenticator, Settings},
};

use super::{
    ABORTED, Answer, BLOCKS, Command, Due, HOST_ID, INVALID_FIELD, Limits, NOT_READY, SUBSYSTEM,
    SUCCESS, Subsystem, connection::CAPSULE, secrets,
};
/// Largest id of a queue, more than a host asks for.
const QUEUE_ID_MAX: u16 = 1024;

/// Longest time from the submission of a command to its arrival.
const SEND_MAX: Duration = Duration::from_millis(50);

/// Controller, from its Connect to the end of its connections.
pub(super) struct Association {
    pub(super) limits: Limits,
    pub(super) last_activity: Duration,
    /// Keep Alive Timeout; zero for none.
    keep_alive: Duration,
    /// Controller Configuration, as the host has set it.
    configuration: u32,
    /// Asynchronous Event Requests without an answer.
    event_requests: Vec<Command>,
}

impl Subsystem {
    /// Executes a Fabrics or admin command; `None` if it is answered later or never.
    pub(super) fn administer(&mut self, command: &Command, now: Duration) -> Option<Answer> {
        let seen = command.seen;
        if seen.is_fabrics(0x01) {
            return Some(self.connect(command, now));
        }
        if seen.is_fabrics(0x05) || seen.is_fabrics(0x06) {
            return self.authenticate(command);
        }
        let controller = self.connections.get(&command.connection)?.controller;
        let Some(association) = self.associations.get_mut(&controller) else {
            return Some(Answer { status: NOT_READY, ..Answer::default() });
        };
        let result = match (seen.sqe[0], seen.sqe[4]) {
            (0x7f, 0x00) => {
                if seen.u32_at(44) == 0x14 {
                    association.configuration = seen.u32_at(48);
                }
                0
            }
            (0x7f, 0x04) => association.property(seen.u32_at(44)),
            (0x06, _) => return Some(association.identify(seen, controller, self.nguid)),
            (0x09 | 0x0a, _) => match seen.sqe[40] {
                0x07 => u64::from(association.limits.queues - 1) * 0x0001_0001,
                _ => 0,
            },
            (0x08, _) => return Some(self.abort(command, now)),
            (0x0c, _) => {
                association.event_requests.push(command.clone());
                return None;
            }
            (0x18, _) => 0,
            (0x02, _) => {
                let data = vec![0; (seen.u32_at(32) & 0x00ff_ffff) as usize];
                return Some(Answer { data, ..Answer::default() });
            }
            _ => return Some(Answer { status: 0x4001, ..Answer::default() }),
        };
        Some(Answer { result, ..Answer::default() })
    }

    /// Connects a queue: the admin queue to a new controller, others to the one that they name.
    fn connect(&mut self, command: &Command, now: Duration) -> Answer {
        let Some(connection) = self.connections.get_mut(&command.connection) else {
            return Answer::default();
        };
        let refused = |status| Answer { status, ..Answer::default() };
        let seen = command.seen;
        if command.data.len() < 1024 || connection.controller != 0 {
            return refused(INVALID_FIELD);
        }
        let wanted = u16::from_le_bytes([command.data[16], command.data[17]]);
        if seen.queue != 0 {
            let Some(association) = self.associations.get(&wanted) else {
                // Connect Invalid Parameters: the controller id, in the data.
                return Answer { result: 0x0001_0010, ..refused(0x4182) };
            };
            if seen.queue > QUEUE_ID_MAX {
                return Answer { result: 0x0000_002a, ..refused(0x4182) };
            }
            if association.configuration & 1 == 0 {
                return refused(0x4182);
            }
            connection.controller = wanted;
            let result = u64::from(wanted) | self.required();
            return Answer { result, ..Answer::default() };
        }
        let controller = loop {
            let id = u16::try_from(self.next() % 0xff00).expect("16 bits") + 1;
            if !self.associations.contains_key(&id) {
                break id;
            }
        };
        let keep_alive = Duration::from_millis(seen.u32_at(48).into());
        let limits = self.limits.unwrap_or_else(|| self.draw_limits());
        self.world.note(format_args!("target: controller {controller} with {limits:?}"));
        self.connections.get_mut(&command.connection).expect("just found").controller = controller;
        self.associations.insert(
            controller,
            Association {
                limits,
                last_activity: now,
                keep_alive,
                configuration: 0,
                event_requests: Vec::new(),
            },
        );
        if !keep_alive.is_zero() {
            self.plan(now + keep_alive, Due::KeepAlive(controller));
        }
        let result = u64::from(controller) | self.required();
        Answer { result, ..Answer::default() }
    }

    /// Authentication that the response to a Connect asks for (ATR).
    fn required(&self) -> u64 {
        u64::from(self.authenticates) << 17
    }

    /// Takes a message of an authentication, or gives the next one.
    fn authenticate(&mut self, command: &Command) -> Option<Answer> {
        let number = self.next();
        let connection = self.connections.get_mut(&command.connection)?;
        if command.seen.is_fabrics(0x05) && command.data.starts_with(&[0, 0]) {
            connection.authenticator = Some(Authenticator::new(settings(number)));
        }
        let Some(authenticator) = &mut connection.authenticator else {
            return Some(Answer { status: INVALID_FIELD, ..Answer::default() });
        };
        let mut answer = Answer::default();
        if command.seen.is_fabrics(0x05) {
            authenticator.send(&command.data);
        } else {
            answer.data = authenticator.receive(command.seen.u32_at(44) as usize);
        }
        if authenticator.is_authenticated() {
            self.count("authentications");
        }
        Some(answer)
    }

    fn draw_limits(&mut self) -> Limits {
        self.world.draw(|random| Limits {
            entries: [4, 16, 32][random.index(3)],
            queues: [1, 2, 2, 3][random.index(4)],
            mdts: [1, 2, 5][random.index(3)],
            traffic_keeps_alive: random.once_in(2),
            takes_capsule_data: random.once_in(2),
        })
    }

    /// Ends a controller whose host was silent for too long (Base 3.9).
    pub(super) fn check_keep_alive(&mut self, controller: u16, now: Duration) {
        let Some(association) = self.associations.get(&controller) else { return };
        let due = association.last_activity + association.keep_alive;
        if now < due {
            return self.plan(due, Due::KeepAlive(controller));
        }
        self.world.note(format_args!("target: keep-alive of controller {controller} expired"));
        self.count("keep-alive expired at the target");
        self.associations.remove(&controller);
        let own = self.connections.values_mut().filter(|one| one.controller == controller);
        own.for_each(super::Connection::disconnect);
    }

    /// Checks that the host aborts a command of this controller, which it has waited for. A command
    /// that is sent late, after its submission, is younger here than to the host.
    fn check_abort(&mut self, command: &Command, now: Duration) {
        let seen = command.seen;
        let Some(connection) = self.connections.get(&command.connection) else { return };
        let queue = u16::from_le_bytes([seen.sqe[40], seen.sqe[41]]);
        let key = (connection.controller, queue, [seen.sqe[42], seen.sqe[43]]);
        let age = self.arrivals.get(&key).map(|arrived| now - *arrived);
        if self.lacks_commands || age.is_some_and(|age| age + SEND_MAX >= self.io_timeout) {
            return;
        }
        let (number, id) = (command.number, u16::from_le_bytes(key.2));
        let what = format!(
            "#{number} aborts command {id:#x} of queue {queue} after {age:?}, of {:?}",
            self.io_timeout
        );
        self.world.note(format_args!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    /// Aborts an I/O command that has not been applied, sometimes.
    fn abort(&mut self, command: &Command, now: Duration) -> Answer {
        self.count("aborts");
        self.check_abort(command, now);
        let (queue, id) = (command.seen.u32_at(40) & 0xffff, &command.seen.sqe[42..44]);
        let controller = self.connections.get(&command.connection).map(|one| one.controller);
        let found = self.agenda.iter().find_map(|(key, due)| match due {
            Due::Apply(other)
                if u32::from(other.seen.queue) == queue
                    && other.seen.sqe[2..4] == *id
                    && self.connections.get(&other.connection).map(|one| one.controller)
                        == controller =>
            {
                Some(*key)
            }
            _ => None,
        });
        let found = found.filter(|_| self.world.draw(|random| random.once_in(2)));
        let Some(Due::Apply(mut aborted)) = found.and_then(|key| self.agenda.remove(&key)) else {
            return Answer { status: SUCCESS, result: 1, data: Vec::new() };
        };
        self.count("commands aborted");
        aborted.fault = None;
        let answer = Answer { status: ABORTED, ..Answer::default() };
        self.plan(now, Due::Answer(aborted, answer));
        Answer::default()
    }

    /// Completes an Asynchronous Event Request of each controller: an attribute of a namespace has
    /// changed.
    pub(crate) fn raise_event(&mut self, now: Duration) {
        let requests: Vec<_> = self
            .associations
            .values_mut()
            .filter_map(|association| association.event_requests.pop())
            .collect();
        for request in requests {
            let answer = Answer { result: 0x0004_0002, ..Answer::default() };
            self.plan(now, Due::Answer(request, answer));
            self.count("events raised");
        }
    }
}

/// Parameters of an exchange: two-way, with the null group.
fn settings(number: u64) -> Settings {
    let [host_secret, controller_secret] = secrets();
    Settings {
        host_secret,
        controller_secret: Some(controller_secret),
        hash: HashId::SHA_256,
        group: GroupId::NULL,
        host_nqn: format!("nqn.2014-08.org.nvmexpress:uuid:{HOST_ID}"),
        subsystem_nqn: SUBSYSTEM.to_owned(),
        seed: number.to_le_bytes()[0],
    }
}

impl Association {
    /// Value of a property (Base 3.1.4).
    fn property(&self, offset: u32) -> u64 {
        let is_enabled = self.configuration & 1 != 0;
        let is_shut_down = self.configuration & 0xc000 != 0;
        match offset {
            // Maximum queue entries, ready within half a second, NVM command set.
            0x00 => 0x0000_0020_0101_0000 | u64::from(self.limits.entries - 1),
            0x08 => 0x0001_0400,
            0x14 => self.configuration.into(),
            0x1c => u64::from(is_enabled) | u64::from(is_shut_down) << 3,
            _ => 0,
        }
    }

    fn identify(&self, seen: ReceivedCommand, controller: u16, nguid: u8) -> Answer {
        let mut data = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
        match seen.sqe[40] {
            0x00 => {
                put(0, &BLOCKS.to_le_bytes());
                put(8, &BLOCKS.to_le_bytes());
                put(104, &[nguid]);
                put(130, &[9]);
            }
            0x01 => {
                put(4, b"MODEL");
                // As Linux's target, it has no controller id of which a command is left.
                put(24, b"Linux");
                put(77, &[self.limits.mdts]);
                put(78, &controller.to_le_bytes());
                put(80, &0x0001_0400_u32.to_le_bytes());
                put(92, &0x0000_0100_u32.to_le_bytes()); // events: namespace attributes
                put(96, &(u32::from(self.limits.traffic_keeps_alive) << 6).to_le_bytes());
                put(320, &10_u16.to_le_bytes());
                put(512, &[0x66, 0x44]);
                put(514, &self.limits.entries.to_le_bytes());
                put(516, &1_u32.to_le_bytes());
                put(536, &[0x05, 0, 0x10, 0]);
                let capsule = if self.limits.takes_capsule_data { CAPSULE } else { 64 };
                put(1792, &u32::try_from(capsule / 16).expect("small").to_le_bytes());
                put(1796, &[1]);
            }
            0x02 => put(0, &1_u32.to_le_bytes()),
            0x03 => {}
            _ => return Answer { status: INVALID_FIELD, ..Answer::default() },
        }
        Answer { data, ..Answer::default() }
    }
}
