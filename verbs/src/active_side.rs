//! The active side of a connection, from the first address to the last completion, as a state
//! machine over plain values.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{ConnectionEvent, Error, Provider, provider::CmEventKind};

/// State machine of the active side of one connection (InfiniBand 12.9): connecting, disconnecting
/// and draining.
///
/// It waits for nothing, reads no clock and touches no device: its owner hands it every
/// [`Event`] with the time, carries out the [`Action`] that comes back, and hands in
/// [`Event::Deadline`] at the time that [`poll_timeout`](Self::poll_timeout) names.
///
/// ```text
///   Idle --> ResolvingAddress --> Preparing --> ResolvingRoute --> Connecting --> Established
///              ^  ^                                      |          |   |   |         |
///              |  '--- port active --- AwaitingPort <----+-- port --'   |   |   Disconnecting
///              |                                            down        |   |         |
///              '------ pause over ---- Pausing <--- stale connection ---'   |      Draining
///              '---- device reopened <-- no answer since the port was down --'         |
///                                                                                  Closed
/// ```
///
/// Up to `Connecting`, what does not help leads to `Failed`. The table of every event in every
/// state is `active_side/matrix.txt`, which a test compares with the code. Each new start uses
/// up one of a fixed number of attempts, so connecting ends.
///
/// Teardown has its order: the disconnect turns the queue pair into its error state, all posted
/// work comes back as completions, and only then is the connection `Closed` and its parts free
/// to go.
#[derive(Clone, Debug)]
pub struct ActiveSide {
    state: State,
    deadline: Option<Instant>,
    port: Port,
    attempts_left: u8,
    timeouts: Timeouts,
    cause: Option<Cause>,
}

/// Time limits of the waiting states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// In [`State::ResolvingAddress`].
    pub resolve_address: Duration,
    /// In [`State::ResolvingRoute`].
    pub resolve_route: Duration,
    /// In [`State::Connecting`].
    pub connect: Duration,
    /// In [`State::Pausing`], after which the next attempt follows.
    pub pause: Duration,
    /// In [`State::AwaitingPort`].
    pub port: Duration,
    /// In [`State::Disconnecting`].
    pub disconnect: Duration,
    /// In [`State::Draining`].
    pub drain: Duration,
}

/// State of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was asked yet.
    Idle,
    /// The CM looks for the device that leads to the peer.
    ResolvingAddress,
    /// The device is known; the owner makes the queue pair.
    Preparing,
    /// The CM looks for the way.
    ResolvingRoute,
    /// The request is sent.
    Connecting,
    /// The peer takes us for an old connection, which needs time to go.
    Pausing,
    /// The device's port is down; a request sent now could be the CM's last.
    AwaitingPort,
    /// The connection is there.
    Established,
    /// Our disconnect is sent.
    Disconnecting,
    /// The connection is over; posted work is coming back.
    Draining,
    /// The end of a connection.
    Closed,
    /// The end of an attempt to make one.
    Failed,
}

/// Input of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The CM reports something.
    Cm {
        /// Kind of the CM event.
        kind: CmEventKind,
        /// An errno, or the CM's reason for a rejection.
        status: i32,
    },
    /// The time named by [`ActiveSide::poll_timeout`] has come. Ignored before that.
    Deadline,
    /// The owner wants an end.
    Disconnect,
    /// All posted work has come back.
    Drained,
    /// The device's port can be used (again).
    PortActive,
    /// The device's port lost its link.
    PortDown,
    /// The queue pair is in its error state, without our having asked for it.
    QueuePairError,
    /// The queue pair is made, with its first receives posted.
    QueuePairMade,
    /// The last action could not be carried out.
    RequestFailed,
    /// The owner wants a connection.
    Start,
}

/// Output of the state machine: the call that the owner makes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the connection stands still until it is done"]
pub enum Action {
    /// Drop the endpoint and its queue pair: an old request must not be sent again. Report when
    /// the device's port is active.
    AwaitPort,
    /// Free what the connection was made of: it has ended, for this cause.
    Closed(Cause),
    /// Send the connection request.
    Connect,
    /// Disconnect.
    Disconnect,
    /// Take completions until nothing is posted any more, and report that.
    Drain,
    /// Use the connection.
    Established,
    /// Free what was made so far: there will be no connection, for this cause.
    Failed(Cause),
    /// Make the queue pair, post its receives, and report that.
    MakeQueuePair,
    /// Nothing: wait for an event or the deadline.
    None,
    /// Drop the endpoint and its queue pair. The next attempt follows at the deadline.
    Pause,
    /// Resolve the address, on something fresh; what was there before is dropped first.
    ResolveAddress(Reopen),
    /// Resolve the route.
    ResolveRoute,
}

/// Objects that an attempt opens again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopen {
    /// Device, and everything made from it: its CM neither sends nor receives any more.
    Device,
    /// Endpoint.
    Endpoint,
}

/// Cause of the end of a connection or of an attempt: an event in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// State in which the event came.
    pub state: State,
    /// Event that ended it.
    pub event: Event,
}

/// State of the device's port, as far as it was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Active,
    Down,
    /// Active, but it was down since the device was opened.
    WasDown,
}

impl ActiveSide {
    /// Nothing is asked yet; connecting may begin `attempts` times, once at least.
    #[must_use]
    pub fn new(timeouts: Timeouts, attempts: u8) -> Self {
        Self {
            state: State::Idle,
            deadline: None,
            port: Port::Active,
            attempts_left: attempts.max(1),
            timeouts,
            cause: None,
        }
    }

    /// Takes in what happened at `now`, and says what is to be done about it.
    pub fn handle(&mut self, event: Event, now: Instant) -> Action {
        if event == Event::Deadline && self.deadline.is_none_or(|deadline| now < deadline) {
            return Action::None;
        }
        self.note_port(event);
        let cause = Cause { state: self.state, event };
        match decide(self.state, Signal::of(event)) {
            Decision::Ignore => Action::None,
            Decision::Resolve => self.resolve(now),
            Decision::Prepare => self.enter(State::Preparing, None, Action::MakeQueuePair),
            Decision::Route => {
                let deadline = now.checked_add(self.timeouts.resolve_route);
                self.enter(State::ResolvingRoute, deadline, Action::ResolveRoute)
            }
            Decision::Connect => self.connect(now),
            Decision::Retry => self.pause(cause, now),
            Decision::Await => self.retry_when_active(cause, now),
            Decision::Reopen => self.reopen_device(cause, now),
            Decision::Establish => self.enter(State::Established, None, Action::Established),
            Decision::Disconnect => {
                self.cause = Some(cause);
                let deadline = now.checked_add(self.timeouts.disconnect);
                self.enter(State::Disconnecting, deadline, Action::Disconnect)
            }
            Decision::Drain => {
                self.cause.get_or_insert(cause);
                let deadline = now.checked_add(self.timeouts.drain);
                self.enter(State::Draining, deadline, Action::Drain)
            }
            Decision::Close => {
                let cause = *self.cause.get_or_insert(cause);
                self.enter(State::Closed, None, Action::Closed(cause))
            }
            Decision::Fail => self.fail(cause),
        }
    }

    /// Time at which [`Event::Deadline`] is due; `None` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// State of the connection.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Cause of the end or failure; `None` while there is none.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    fn note_port(&mut self, event: Event) {
        self.port = match (event, self.port) {
            (Event::PortDown, _) => Port::Down,
            (Event::PortActive, Port::Down) => Port::WasDown,
            (_, port) => port,
        }
    }

    /// Begins an attempt, once the port is usable.
    fn resolve(&mut self, now: Instant) -> Action {
        if self.port == Port::Down {
            return self.await_port(now);
        }
        self.begin(Reopen::Endpoint, now)
    }

    fn begin(&mut self, reopen: Reopen, now: Instant) -> Action {
        self.attempts_left = self.attempts_left.saturating_sub(1);
        let deadline = now.checked_add(self.timeouts.resolve_address);
        self.enter(State::ResolvingAddress, deadline, Action::ResolveAddress(reopen))
    }

    /// Sends the request, unless the port is down.
    fn connect(&mut self, now: Instant) -> Action {
        if self.port == Port::Down {
            let event = Event::PortDown;
            return self.retry_when_active(Cause { state: self.state, event }, now);
        }
        let deadline = now.checked_add(self.timeouts.connect);
        self.enter(State::Connecting, deadline, Action::Connect)
    }

    fn pause(&mut self, cause: Cause, now: Instant) -> Action {
        if self.attempts_left == 0 {
            return self.fail(cause);
        }
        let deadline = now.checked_add(self.timeouts.pause);
        self.enter(State::Pausing, deadline, Action::Pause)
    }

    /// Gives an attempt up for one after the port is back.
    fn retry_when_active(&mut self, cause: Cause, now: Instant) -> Action {
        if self.attempts_left == 0 {
            return self.fail(cause);
        }
        self.await_port(now)
    }

    fn await_port(&mut self, now: Instant) -> Action {
        let deadline = now.checked_add(self.timeouts.port);
        self.enter(State::AwaitingPort, deadline, Action::AwaitPort)
    }

    /// No answer at all: where the port was down that may be the CM of our own device.
    fn reopen_device(&mut self, cause: Cause, now: Instant) -> Action {
        if self.port != Port::WasDown || self.attempts_left == 0 {
            return self.fail(cause);
        }
        self.port = Port::Active;
        self.begin(Reopen::Device, now)
    }

    fn fail(&mut self, cause: Cause) -> Action {
        self.cause = Some(cause);
        self.enter(State::Failed, None, Action::Failed(cause))
    }

    fn enter(&mut self, state: State, deadline: Option<Instant>, action: Action) -> Action {
        self.state = state;
        self.deadline = deadline;
        action
    }
}

impl Event {
    /// The event that stands for a connection request that fails within the call, as those on
    /// iWARP do: the one that Linux's CM reports where the device connects by itself. Nothing
    /// where it has no such event, since the request was a mistake of ours.
    #[must_use]
    pub fn of_connect_error(error: &Error) -> Option<Self> {
        let Error::Connect(source) = error else { return None };
        let errno = source.raw_os_error()?;
        let kind = match errno {
            libc::ECONNREFUSED | libc::ECONNRESET => CmEventKind::REJECTED,
            libc::ETIMEDOUT => CmEventKind::UNREACHABLE,
            libc::EHOSTUNREACH | libc::ENETUNREACH => CmEventKind::CONNECT_ERROR,
            _ => return None,
        };
        Some(Self::Cm { kind, status: -errno })
    }
}

impl<P: Provider> From<&ConnectionEvent<P>> for Event {
    fn from(event: &ConnectionEvent<P>) -> Self {
        let (kind, status) = match event {
            ConnectionEvent::AddressChange => (CmEventKind::ADDRESS_CHANGE, 0),
            ConnectionEvent::AddressError { status } => (CmEventKind::ADDRESS_ERROR, *status),
            ConnectionEvent::AddressResolved => (CmEventKind::ADDRESS_RESOLVED, 0),
            ConnectionEvent::ConnectError { status } => (CmEventKind::CONNECT_ERROR, *status),
            ConnectionEvent::ConnectRequest { .. } => (CmEventKind::CONNECT_REQUEST, 0),
            ConnectionEvent::ConnectResponse => (CmEventKind::CONNECT_RESPONSE, 0),
            ConnectionEvent::DeviceRemoval => (CmEventKind::DEVICE_REMOVAL, 0),
            ConnectionEvent::Disconnected => (CmEventKind::DISCONNECTED, 0),
            ConnectionEvent::Established(_) => (CmEventKind::ESTABLISHED, 0),
            ConnectionEvent::Other(number) => (CmEventKind(*number), 0),
            ConnectionEvent::Rejected { status, .. } => (CmEventKind::REJECTED, *status),
            ConnectionEvent::RouteError { status } => (CmEventKind::ROUTE_ERROR, *status),
            ConnectionEvent::RouteResolved => (CmEventKind::ROUTE_RESOLVED, 0),
            ConnectionEvent::TimewaitExit => (CmEventKind::TIMEWAIT_EXIT, 0),
            ConnectionEvent::Unreachable { status } => (CmEventKind::UNREACHABLE, *status),
        };
        Self::Cm { kind, status }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in state {:?}", Signal::of(self.event), self.state)?;
        match self.event {
            Event::Cm { status, .. } if status != 0 => write!(f, " (status {status})"),
            _ => Ok(()),
        }
    }
}

/// The rows of the table: events without their numbers, as far as these decide nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    AddressChange,
    AddressError,
    AddressResolved,
    ConnectError,
    ConnectRequest,
    ConnectResponse,
    Deadline,
    DeviceRemoval,
    Disconnect,
    Disconnected,
    Drained,
    Established,
    PortActive,
    PortDown,
    QueuePairError,
    QueuePairMade,
    Rejected,
    RequestFailed,
    RouteError,
    RouteResolved,
    /// A rejection because of an old connection.
    Stale,
    Start,
    TimewaitExit,
    /// A number that the CM did not have when this was written.
    Unknown,
    Unreachable,
}

impl Signal {
    fn of(event: Event) -> Self {
        match event {
            Event::Cm { kind, status } => Self::of_cm(kind, status),
            Event::Deadline => Self::Deadline,
            Event::Disconnect => Self::Disconnect,
            Event::Drained => Self::Drained,
            Event::PortActive => Self::PortActive,
            Event::PortDown => Self::PortDown,
            Event::QueuePairError => Self::QueuePairError,
            Event::QueuePairMade => Self::QueuePairMade,
            Event::RequestFailed => Self::RequestFailed,
            Event::Start => Self::Start,
        }
    }

    fn of_cm(kind: CmEventKind, status: i32) -> Self {
        match kind {
            CmEventKind::ADDRESS_CHANGE => Self::AddressChange,
            CmEventKind::ADDRESS_ERROR => Self::AddressError,
            CmEventKind::ADDRESS_RESOLVED => Self::AddressResolved,
            CmEventKind::CONNECT_ERROR => Self::ConnectError,
            CmEventKind::CONNECT_REQUEST => Self::ConnectRequest,
            CmEventKind::CONNECT_RESPONSE => Self::ConnectResponse,
            CmEventKind::DEVICE_REMOVAL => Self::DeviceRemoval,
            CmEventKind::DISCONNECTED => Self::Disconnected,
            CmEventKind::ESTABLISHED => Self::Established,
            CmEventKind::REJECTED if status == STALE_CONNECTION => Self::Stale,
            CmEventKind::REJECTED => Self::Rejected,
            CmEventKind::ROUTE_ERROR => Self::RouteError,
            CmEventKind::ROUTE_RESOLVED => Self::RouteResolved,
            CmEventKind::TIMEWAIT_EXIT => Self::TimewaitExit,
            CmEventKind::UNREACHABLE => Self::Unreachable,
            CmEventKind(_) => Self::Unknown,
        }
    }
}

/// The cells of the table. Some depend on what is left: see the methods they lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Await,
    Close,
    Connect,
    Disconnect,
    Drain,
    Establish,
    Fail,
    Ignore,
    Prepare,
    Resolve,
    Retry,
    Reopen,
    Route,
}

/// The table: what every event means in every state.
fn decide(state: State, signal: Signal) -> Decision {
    use {Decision as D, Signal as E, State as S};
    match (state, signal) {
        (S::Idle, E::Start) => D::Resolve,
        (S::ResolvingAddress, E::AddressResolved) => D::Prepare,
        (S::Preparing, E::QueuePairMade) => D::Route,
        (S::ResolvingRoute, E::RouteResolved) => D::Connect,
        (S::Connecting, E::Established) => D::Establish,

        (S::Connecting, E::Stale) => D::Retry,
        (S::Connecting, E::PortDown) => D::Await,
        (S::Connecting, E::Deadline | E::Unreachable) => D::Reopen,
        (S::Pausing, E::Deadline) | (S::AwaitingPort, E::PortActive) => D::Resolve,
        (S::AwaitingPort, E::Deadline) => D::Fail,

        // The peer's disconnect is answered with ours. Without a device there is none to send.
        (
            S::Established,
            E::AddressChange | E::Disconnect | E::Disconnected | E::QueuePairError,
        ) => D::Disconnect,
        (
            S::Established,
            E::ConnectError
            | E::DeviceRemoval
            | E::Rejected
            | E::Stale
            | E::TimewaitExit
            | E::Unreachable,
        )
        | (
            S::Disconnecting,
            E::Deadline | E::DeviceRemoval | E::Disconnected | E::RequestFailed | E::TimewaitExit,
        ) => D::Drain,
        (S::Draining, E::Deadline | E::Drained) => D::Close,

        // A port that was idle while it was down does no harm, and is noted anyway. What is not
        // known can't matter: there is a deadline.
        (_, E::PortActive | E::PortDown | E::Unknown) => D::Ignore,
        // The rest changes nothing about a connection, or one on its way out.
        (S::Established | S::Disconnecting | S::Draining | S::Closed | S::Failed, _) => D::Ignore,

        (_, E::Disconnect) => D::Close,
        // No endpoint is there: this is of an earlier one.
        (S::Idle | S::Pausing | S::AwaitingPort, _) => D::Ignore,
        // Nor has a queue pair been made yet.
        (S::ResolvingAddress, E::QueuePairError) => D::Ignore,
        (_, E::Drained | E::Start) => D::Ignore,
        (S::ResolvingAddress | S::Preparing | S::ResolvingRoute | S::Connecting, _) => D::Fail,
    }
}

/// The CM's reason for a rejection (InfiniBand 12.6.7.2) where the peer takes the request for
/// part of a connection that it has, or had until just now.
const STALE_CONNECTION: i32 = 10;

#[cfg(test)]
mod tests;
