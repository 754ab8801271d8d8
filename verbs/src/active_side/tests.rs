//! The table in words, the ways through it, and arbitrary sequences of events.

use std::fmt::Write as _;

use super::*;

const STATES: [State; 12] = [
    State::Idle,
    State::ResolvingAddress,
    State::Preparing,
    State::ResolvingRoute,
    State::Connecting,
    State::Pausing,
    State::AwaitingPort,
    State::Established,
    State::Disconnecting,
    State::Draining,
    State::Closed,
    State::Failed,
];

/// Every event there is: of the CM's numbers the known ones, and two that are not.
fn events() -> Vec<Event> {
    let reported = |number| Event::Cm { kind: CmEventKind(number), status: 0 };
    let refused = |status| Event::Cm { kind: CmEventKind::REJECTED, status };
    let mut all = vec![
        Event::Start,
        Event::QueuePairMade,
        Event::RequestFailed,
        Event::Deadline,
        Event::PortDown,
        Event::PortActive,
        Event::Disconnect,
        Event::QueuePairError,
        Event::Drained,
    ];
    all.extend((0..=7).map(reported));
    all.extend([refused(STALE_CONNECTION), refused(28)]);
    all.extend([9, 10, 11, 14, 15, 12, u32::MAX].map(reported));
    all
}

const TIMEOUTS: Timeouts = Timeouts {
    resolve_address: Duration::from_secs(1),
    resolve_route: Duration::from_secs(2),
    connect: Duration::from_secs(3),
    pause: Duration::from_secs(4),
    port: Duration::from_secs(5),
    disconnect: Duration::from_secs(6),
    drain: Duration::from_secs(7),
};

const ATTEMPTS: u8 = 3;

/// The word for a decision in the matrix.
fn word(decision: Decision) -> String {
    match decision {
        Decision::Ignore => "-".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

const LEGEND: &str = "\
What every event means in every state: rows are events, columns are states. A test compares this
with the code; UPDATE_MATRIX=1 cargo test -p rdma-verbs matrix writes it.

  -           ignored; port events are noted
  await       wait for the port without an endpoint; failed if no attempt is left
  close       closed: everything may be freed
  connect     send the request; where the port is down, await
  disconnect  send a disconnect; the queue pair turns to its error state
  drain       take posted work back
  establish   the connection is there
  fail        failed, with this event as the cause
  prepare     make the queue pair
  resolve     resolve the address on a fresh endpoint; where the port is down, await
  retry       pause, then resolve; failed if no attempt is left
  reopen      open the device again if its port was down before and an attempt is left; else failed
  route       resolve the route
";

/// The matrix in two parts, the way up and the rest, so that its lines fit a screen.
fn matrix() -> String {
    let mut signals: Vec<_> = events().into_iter().map(Signal::of).collect();
    signals.dedup();
    let mut text = LEGEND.to_owned();
    for states in [&STATES[..5], &STATES[5..]] {
        let mut rows = vec![(String::new(), states.iter().map(|s| format!("{s:?}")).collect())];
        rows.extend(signals.iter().map(|&signal| {
            let cells = states.iter().map(|&state| word(decide(state, signal))).collect();
            (format!("{signal:?}"), cells)
        }));
        text.push('\n');
        for (event, cells) in rows {
            let mut line = format!("{event:<15}");
            for (cell, state) in Iterator::zip(Vec::into_iter(cells), states) {
                let width = format!("{state:?}").len();
                write!(line, "  {cell:<width$}").unwrap();
            }
            writeln!(text, "{}", line.trim_end()).unwrap();
        }
    }
    text
}

#[test]
fn the_matrix_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/active_side/matrix.txt");
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(path, matrix()).unwrap();
    }
    let committed = include_str!("matrix.txt");
    assert!(committed == matrix(), "matrix.txt is not the table:\n{}", matrix());
}

/// A connection attempt, driven by hand.
struct Attempt {
    side: ActiveSide,
    now: Instant,
}

impl Attempt {
    fn new(attempts: u8) -> Self {
        Self { side: ActiveSide::new(TIMEOUTS, attempts), now: Instant::now() }
    }

    fn event(&mut self, event: Event) -> Action {
        self.side.handle(event, self.now)
    }

    fn cm(&mut self, kind: CmEventKind, status: i32) -> Action {
        self.event(Event::Cm { kind, status })
    }

    /// Lets the time pass until the deadline, which a moment earlier is none.
    fn silence(&mut self) -> Action {
        self.now = self.side.poll_timeout().unwrap();
        let early = self.now.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(self.side.handle(Event::Deadline, early), Action::None);
        self.event(Event::Deadline)
    }

    /// From a fresh endpoint to the request.
    fn connecting(&mut self) {
        assert_eq!(self.cm(CmEventKind::ADDRESS_RESOLVED, 0), Action::MakeQueuePair);
        assert_eq!(self.event(Event::QueuePairMade), Action::ResolveRoute);
        assert_eq!(self.cm(CmEventKind::ROUTE_RESOLVED, 0), Action::Connect);
    }

    fn started(attempts: u8) -> Self {
        let mut this = Self::new(attempts);
        assert_eq!(this.event(Event::Start), Action::ResolveAddress(Reopen::Endpoint));
        this
    }

    fn established() -> Self {
        let mut this = Self::started(1);
        this.connecting();
        assert_eq!(this.cm(CmEventKind::ESTABLISHED, 0), Action::Established);
        assert_eq!(this.side.poll_timeout(), None);
        this
    }
}

#[test]
fn a_connection_comes_and_goes() {
    let mut attempt = Attempt::established();
    assert_eq!(attempt.event(Event::Disconnect), Action::Disconnect);
    assert_eq!(attempt.event(Event::QueuePairError), Action::None);
    assert_eq!(attempt.cm(CmEventKind::DISCONNECTED, 0), Action::Drain);
    assert_eq!(attempt.cm(CmEventKind::TIMEWAIT_EXIT, 0), Action::None);
    let cause = Cause { state: State::Established, event: Event::Disconnect };
    assert_eq!(attempt.event(Event::Drained), Action::Closed(cause));
    assert_eq!(attempt.side.cause(), Some(cause));
}

#[test]
fn the_first_cause_is_the_one_that_is_kept() {
    let mut attempt = Attempt::established();
    assert_eq!(attempt.event(Event::QueuePairError), Action::Disconnect);
    assert_eq!(attempt.event(Event::Disconnect), Action::None);
    assert_eq!(attempt.silence(), Action::Drain, "the peer does not answer");
    let cause = Cause { state: State::Established, event: Event::QueuePairError };
    assert_eq!(attempt.silence(), Action::Closed(cause), "nor does the device");
}

#[test]
fn a_device_that_goes_is_not_asked_to_disconnect() {
    let mut attempt = Attempt::established();
    assert_eq!(attempt.cm(CmEventKind::DEVICE_REMOVAL, 0), Action::Drain);
    assert!(matches!(attempt.event(Event::Drained), Action::Closed(_)));
}

#[test]
fn each_step_has_its_deadline() {
    let mut attempt = Attempt::started(ATTEMPTS);
    let due = |attempt: &Attempt| attempt.side.poll_timeout().map(|due| due - attempt.now);
    assert_eq!(due(&attempt), Some(TIMEOUTS.resolve_address));
    let _ = attempt.cm(CmEventKind::ADDRESS_RESOLVED, 0);
    assert_eq!(due(&attempt), None, "the owner is at work");
    let _ = attempt.event(Event::QueuePairMade);
    assert_eq!(due(&attempt), Some(TIMEOUTS.resolve_route));
    let _ = attempt.cm(CmEventKind::ROUTE_RESOLVED, 0);
    assert_eq!(due(&attempt), Some(TIMEOUTS.connect));
    let cause = Cause { state: State::Connecting, event: Event::Deadline };
    assert_eq!(attempt.silence(), Action::Failed(cause), "the port was never down");
    assert_eq!(cause.to_string(), "Deadline in state Connecting");
}

#[test]
fn a_stale_connection_is_tried_again_a_few_times() {
    let mut attempt = Attempt::started(ATTEMPTS);
    for _ in 1..ATTEMPTS {
        attempt.connecting();
        assert_eq!(attempt.cm(CmEventKind::REJECTED, STALE_CONNECTION), Action::Pause);
        assert_eq!(attempt.cm(CmEventKind::TIMEWAIT_EXIT, 0), Action::None);
        assert_eq!(attempt.silence(), Action::ResolveAddress(Reopen::Endpoint));
    }
    attempt.connecting();
    let Action::Failed(cause) = attempt.cm(CmEventKind::REJECTED, STALE_CONNECTION) else {
        panic!("no attempt was left");
    };
    assert_eq!(cause.to_string(), "Stale in state Connecting (status 10)");
}

#[test]
fn other_rejections_are_final() {
    let mut attempt = Attempt::started(ATTEMPTS);
    attempt.connecting();
    assert!(matches!(attempt.cm(CmEventKind::REJECTED, 28), Action::Failed(_)));
}

#[test]
fn no_request_is_sent_while_the_port_is_down() {
    let mut attempt = Attempt::started(ATTEMPTS);
    let _ = attempt.cm(CmEventKind::ADDRESS_RESOLVED, 0);
    assert_eq!(attempt.event(Event::PortDown), Action::None);
    let _ = attempt.event(Event::QueuePairMade);
    assert_eq!(attempt.cm(CmEventKind::ROUTE_RESOLVED, 0), Action::AwaitPort);
    assert_eq!(attempt.event(Event::PortActive), Action::ResolveAddress(Reopen::Endpoint));
    attempt.connecting();
    assert_eq!(attempt.event(Event::PortDown), Action::AwaitPort, "nor sent again");
    let cause = Cause { state: State::AwaitingPort, event: Event::Deadline };
    assert_eq!(attempt.silence(), Action::Failed(cause));
}

#[test]
fn a_cm_that_is_silent_since_the_port_was_down_is_opened_again() {
    let mut attempt = Attempt::started(ATTEMPTS);
    attempt.connecting();
    assert_eq!(attempt.event(Event::PortDown), Action::AwaitPort);
    assert_eq!(attempt.event(Event::PortActive), Action::ResolveAddress(Reopen::Endpoint));
    attempt.connecting();
    assert_eq!(attempt.silence(), Action::ResolveAddress(Reopen::Device));
    attempt.connecting();
    assert!(matches!(attempt.cm(CmEventKind::UNREACHABLE, -110), Action::Failed(_)));
}

#[test]
fn the_owner_may_give_up_at_any_time() {
    let mut attempt = Attempt::started(1);
    attempt.connecting();
    let cause = Cause { state: State::Connecting, event: Event::Disconnect };
    assert_eq!(attempt.event(Event::Disconnect), Action::Closed(cause));
    assert_eq!(attempt.cm(CmEventKind::ESTABLISHED, 0), Action::None);
}

/// A generator that is small and the same everywhere (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn is_over(side: &ActiveSide) -> bool {
    matches!(side.state(), State::Closed | State::Failed)
}

/// Events in any order, each at a random time, sometimes what the last action asked for: at most
/// `ATTEMPTS` starts, no action once it is over.
#[test]
fn any_sequence_of_events_ends_and_stays_ended() {
    let events = events();
    for seed in 1..=20_000 {
        let mut random = Random::new(seed);
        let mut attempt = Attempt::new(ATTEMPTS);
        let (mut begun, mut wish) = (0, Some(Event::Start));
        for _ in 0..60 {
            attempt.now += Duration::from_millis(u64::try_from(random.below(3000)).unwrap());
            let event = match wish.take() {
                Some(event) if random.below(4) > 0 => event,
                _ => events[random.below(events.len())],
            };
            let over = is_over(&attempt.side);
            let action = attempt.event(event);
            assert!(!over || action == Action::None, "seed {seed}: {action:?} after the end");
            begun += u8::from(matches!(action, Action::ResolveAddress(_)));
            assert_eq!(is_over(&attempt.side) && !over, is_last(action), "seed {seed}: {action:?}");
            wish = answer(action).or(wish);
        }
        assert!(begun <= ATTEMPTS, "seed {seed}: {begun} starts");
        end(&mut attempt, seed);
    }
}

fn is_last(action: Action) -> bool {
    matches!(action, Action::Closed(_) | Action::Failed(_))
}

/// Event that follows an action when nothing fails.
fn answer(action: Action) -> Option<Event> {
    let cm = |kind| Some(Event::Cm { kind, status: 0 });
    match action {
        Action::AwaitPort => Some(Event::PortActive),
        Action::Connect => cm(CmEventKind::ESTABLISHED),
        Action::Disconnect => cm(CmEventKind::DISCONNECTED),
        Action::Drain => Some(Event::Drained),
        Action::MakeQueuePair => Some(Event::QueuePairMade),
        Action::Pause => Some(Event::Deadline),
        Action::ResolveAddress(_) => cm(CmEventKind::ADDRESS_RESOLVED),
        Action::ResolveRoute => cm(CmEventKind::ROUTE_RESOLVED),
        Action::Closed(_) | Action::Established | Action::Failed(_) | Action::None => None,
    }
}

/// From wherever it stands, silence ends it once its owner wants that.
fn end(attempt: &mut Attempt, seed: u64) {
    let _ = attempt.event(Event::Disconnect);
    for _ in 0..2 {
        if attempt.side.poll_timeout().is_some() {
            let _ = attempt.silence();
        }
    }
    assert!(is_over(&attempt.side), "seed {seed}: {:?}", attempt.side.state());
    assert_eq!(attempt.side.poll_timeout(), None);
    assert!(attempt.side.cause().is_some());
}

/// For any answers of the peer, a started attempt ends by itself or is established.
#[test]
fn silence_at_any_point_ends_the_attempt() {
    for seed in 1..=2_000 {
        let mut random = Random::new(seed);
        let mut attempt = Attempt::new(ATTEMPTS);
        let mut action = attempt.event(Event::Start);
        let mut steps = 0;
        while !is_over(&attempt.side) && attempt.side.state() != State::Established {
            let trouble = match random.below(6) {
                0 => Some(Event::PortDown),
                1 => Some(Event::PortActive),
                2 => Some(Event::Cm { kind: CmEventKind::REJECTED, status: STALE_CONNECTION })
                    .filter(|_| attempt.side.state() == State::Connecting),
                _ => None,
            };
            action = match (trouble, answer(action)) {
                (Some(event), _) => match attempt.event(event) {
                    Action::None => action,
                    next => next,
                },
                (None, Some(event)) if event != Event::Deadline => attempt.event(event),
                _ => attempt.silence(),
            };
            steps += 1;
            assert!(steps < 1000, "seed {seed}: no end in sight");
        }
    }
}

#[test]
fn a_request_that_fails_within_the_call_is_the_event_of_other_devices() {
    let event =
        |errno| Event::of_connect_error(&Error::Connect(std::io::Error::from_raw_os_error(errno)));
    for (errno, kind) in [
        (libc::ECONNREFUSED, CmEventKind::REJECTED),
        (libc::ECONNRESET, CmEventKind::REJECTED),
        (libc::ETIMEDOUT, CmEventKind::UNREACHABLE),
        (libc::EHOSTUNREACH, CmEventKind::CONNECT_ERROR),
        (libc::ENETUNREACH, CmEventKind::CONNECT_ERROR),
    ] {
        assert_eq!(event(errno), Some(Event::Cm { kind, status: -errno }));
    }
    assert_eq!(event(libc::EINVAL), None, "it is not the peer's");
    assert_eq!(Event::of_connect_error(&Error::Misuse("no")), None);
}

#[test]
fn endless_timeouts_are_no_deadline() {
    let timeouts = Timeouts { resolve_address: Duration::MAX, ..TIMEOUTS };
    let mut side = ActiveSide::new(timeouts, 0);
    let action = side.handle(Event::Start, Instant::now());
    assert_eq!(action, Action::ResolveAddress(Reopen::Endpoint), "one attempt at least");
    assert_eq!(side.poll_timeout(), None);
}
