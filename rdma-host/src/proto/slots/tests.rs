use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::wire::Status;

fn response(command: CommandId) -> Cqe {
    Cqe::new(command, Status::SUCCESS, 0)
}

fn finished(answered: Result<ResponseOutcome, TargetMisbehaved>) -> bool {
    matches!(answered.expect("a command in flight"), ResponseOutcome::Completed(_))
}

#[test]
fn a_remote_key_is_invalidated_by_the_response_or_before_completion() {
    let key = RemoteKey(0x501);
    for completes_on in [CompletesOn::Response, CompletesOn::ResponseAndSend] {
        let mut slots = Slots::<()>::new(QueueId(1), 2);
        let begin = |slots: &mut Slots| {
            let command = slots.begin(completes_on, Some(key)).unwrap().command;
            (command, slots.slot(command))
        };
        let (command, slot) = begin(&mut slots);
        let taken = slots.handle_response(response(command), Some(key)).unwrap();
        match completes_on {
            CompletesOn::Response => assert!(matches!(taken, ResponseOutcome::Completed(_))),
            CompletesOn::ResponseAndSend => {
                assert_eq!(taken, ResponseOutcome::Pending);
                assert!(slots.handle_sent(slot).is_some());
            }
        }

        // The key is left valid, and then invalidated before and after the send completion.
        for sent_first in [true, false] {
            let (command, slot) = begin(&mut slots);
            let left = slots.handle_response(response(command), None);
            assert_eq!(left, Ok(ResponseOutcome::KeyStillValid { slot, key }));
            assert!(slots.handle_response(response(command), Some(key)).is_err(), "answered twice");
            let both = completes_on == CompletesOn::ResponseAndSend;
            if sent_first || !both {
                assert_eq!(slots.handle_sent(slot), None);
                assert!(slots.handle_invalidated(slot).is_some());
            } else {
                assert_eq!(slots.handle_invalidated(slot), None);
                assert!(slots.handle_sent(slot).is_some());
            }
            assert_eq!(slots.handle_invalidated(slot), None, "it is done");
        }
        assert_eq!(slots.in_flight(), 0);
    }
}

#[test]
fn a_response_that_invalidates_another_key_is_an_error() {
    let (mine, yours) = (RemoteKey(0x501), RemoteKey(0x602));
    let mut slots = Slots::<()>::new(QueueId(1), 3);
    let keyed = slots.begin(CompletesOn::Response, Some(mine)).unwrap().command;
    let plain = slots.begin(CompletesOn::Response, None).unwrap().command;
    for (command, key) in [(keyed, yours), (plain, mine)] {
        let error = slots.handle_response(response(command), Some(key)).unwrap_err();
        assert_eq!(
            error,
            TargetMisbehaved::WrongKeyInvalidated { key, command, queue: QueueId(1) }
        );
    }
    assert_eq!(slots.in_flight(), 2, "neither is completed by it");
    // The next command of a slot does not inherit the key.
    assert!(finished(slots.handle_response(response(keyed), Some(mine))));
    let next = slots.begin(CompletesOn::Response, None).unwrap().command;
    assert_eq!(slots.slot(next), slots.slot(keyed));
    assert!(slots.handle_response(response(next), Some(mine)).is_err());
    assert!(finished(slots.handle_response(response(next), None)));
}

#[test]
fn a_response_completes_once() {
    let mut slots = Slots::<()>::new(QueueId(1), 4);
    let command = slots.begin(CompletesOn::Response, None).unwrap().command;
    assert!(finished(slots.handle_response(response(command), None)));
    assert!(slots.handle_response(response(command), None).is_err());
}

#[test]
fn a_stale_generation_completes_nothing() {
    let mut slots = Slots::<()>::new(QueueId(1), 1);
    let first = slots.begin(CompletesOn::Response, None).unwrap().command;
    slots.handle_response(response(first), None).unwrap();
    let second = slots.begin(CompletesOn::Response, None).unwrap().command;
    assert_ne!(first, second);
    assert!(slots.handle_response(response(first), None).is_err());
    assert!(finished(slots.handle_response(response(second), None)));
}

#[test]
fn both_events_are_awaited_in_either_order() {
    let mut slots = Slots::<()>::new(QueueId(1), 2);
    let first = slots.begin(CompletesOn::ResponseAndSend, None).unwrap().command;
    let second = slots.begin(CompletesOn::ResponseAndSend, None).unwrap().command;
    assert_eq!(slots.handle_response(response(first), None), Ok(ResponseOutcome::Pending));
    assert!(slots.handle_response(response(first), None).is_err(), "answered twice");
    assert_eq!(slots.handle_sent(slots.slot(first)).unwrap().slot, slots.slot(first));
    assert_eq!(slots.handle_sent(slots.slot(second)), None);
    assert!(finished(slots.handle_response(response(second), None)));
    assert_eq!(slots.in_flight(), 0);
}

#[test]
fn capacity_is_a_limit_and_ids_are_distinct() {
    for capacity in [1, 2, 3, 31, 127, 1023, 0x8000] {
        let mut slots = Slots::<()>::new(QueueId(1), capacity);
        let mut ids: Vec<_> = (0..capacity)
            .map(|_| slots.begin(CompletesOn::Response, None).unwrap().command.0)
            .collect();
        assert!(slots.begin(CompletesOn::Response, None).is_none());
        assert_eq!(slots.available(), 0);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), usize::from(capacity));
        assert_eq!(slots.cancel_all().len(), usize::from(capacity));
        assert_eq!(slots.available(), slots.capacity());
    }
}

#[test]
fn any_command_id_is_handled_without_panic() {
    let mut slots = Slots::<()>::new(QueueId(1), 5);
    let known = slots.begin(CompletesOn::Response, None).unwrap().command;
    for id in 0..=u16::MAX {
        if CommandId(id) != known {
            assert!(slots.handle_response(response(CommandId(id)), None).is_err(), "{id}");
        }
    }
    assert!(finished(slots.handle_response(response(known), None)));
}

#[test]
fn generations_wrap() {
    let mut slots = Slots::<()>::new(QueueId(1), 3);
    for _ in 0..200_000 {
        let command = slots.begin(CompletesOn::Response, None).unwrap().command;
        assert!(finished(slots.handle_response(response(command), None)));
    }
}

/// Events of a queue, with indices that select a command in flight.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begin(bool, bool),
    Respond(usize, bool),
    Send(usize),
    Invalidate(usize),
    Bogus(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<(bool, bool)>().prop_map(|(both, keyed)| Event::Begin(both, keyed)),
        any::<(usize, bool)>().prop_map(|(index, takes)| Event::Respond(index, takes)),
        any::<usize>().prop_map(Event::Send),
        any::<usize>().prop_map(Event::Invalidate),
        any::<u16>().prop_map(Event::Bogus),
    ]
}

/// Reference model: commands in flight, and what each still waits for.
#[derive(Default)]
struct Model(HashMap<CommandId, Waiting>);

#[derive(Clone, Copy, Default, PartialEq)]
struct Waiting {
    response: bool,
    sent: bool,
    key: Option<RemoteKey>,
}

impl Model {
    fn pick(&self, index: usize, waits: impl Fn(&Waiting) -> bool) -> Option<CommandId> {
        let mut ids: Vec<_> =
            self.0.iter().filter(|(_, state)| waits(state)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[index % ids.len()])
    }

    /// Applies an event; returns true if the command has completed.
    fn note(&mut self, id: CommandId, change: impl Fn(&mut Waiting)) -> bool {
        let state = self.0.get_mut(&id).expect("it was picked");
        change(state);
        let done = *state == Waiting::default();
        if done {
            self.0.remove(&id);
        }
        done
    }
}

proptest! {
    #[test]
    fn every_command_ends_exactly_once(capacity in 1u16..40, events in vec(event(), 0..400)) {
        let mut slots = Slots::<()>::new(QueueId(1), capacity);
        let mut model = Model::default();
        let mut keys = 0;
        for event in events {
            match event {
                Event::Begin(sent, keyed) => {
                    let completes_on =
                        if sent { CompletesOn::ResponseAndSend } else { CompletesOn::Response };
                    let key = keyed.then_some(RemoteKey(keys + 1));
                    let begun = slots.begin(completes_on, key).map(|begun| begun.command);
                    prop_assert_eq!(begun.is_some(), model.0.len() < usize::from(capacity));
                    if let Some(id) = begun {
                        keys += 1;
                        let state = Waiting { response: true, sent, key };
                        prop_assert!(model.0.insert(id, state).is_none(), "an id twice");
                    }
                }
                Event::Respond(index, takes) => {
                    let Some(id) = model.pick(index, |state| state.response) else { continue };
                    let invalidated = model.0[&id].key.filter(|_| takes);
                    let answered = slots.handle_response(response(id), invalidated);
                    let done = model.note(id, |state| {
                        state.response = false;
                        state.key = if takes { None } else { state.key };
                    });
                    let reachable = model.0.get(&id).is_some_and(|state| state.key.is_some());
                    let answered = answered.expect("a command in flight");
                    prop_assert_eq!(matches!(answered, ResponseOutcome::Completed(_)), done);
                    let key_valid = matches!(answered, ResponseOutcome::KeyStillValid { .. });
                    prop_assert_eq!(key_valid, reachable);
                }
                Event::Send(index) => {
                    let Some(id) = model.pick(index, |state| state.sent) else { continue };
                    let finished = slots.handle_sent(slots.slot(id));
                    prop_assert_eq!(finished.is_some(), model.note(id, |state| state.sent = false));
                }
                Event::Invalidate(index) => {
                    let left = |state: &Waiting| !state.response && state.key.is_some();
                    let Some(id) = model.pick(index, left) else { continue };
                    let finished = slots.handle_invalidated(slots.slot(id));
                    prop_assert_eq!(finished.is_some(), model.note(id, |state| state.key = None));
                }
                Event::Bogus(id) => {
                    let waits = model.0.get(&CommandId(id)).is_some_and(|state| state.response);
                    if !waits {
                        let answered = slots.handle_response(response(CommandId(id)), None);
                        prop_assert!(answered.is_err());
                    }
                }
            }
            prop_assert_eq!(slots.in_flight(), model.0.len());
        }
        prop_assert_eq!(slots.cancel_all().len(), model.0.len());
    }
}

proptest! {
    /// A response to any command id, stale ones above all, which invalidates any key or none, has
    /// the same outcome on both paths.
    #[test]
    fn the_fast_path_completes_what_the_other_completes(
        steps in vec((0..6_u8, 0..4_usize), 1..40),
        response_id in any::<u16>(),
        recent in any::<proptest::sample::Index>(),
        is_recent in any::<bool>(),
        key in proptest::option::of(0..3_u32),
    ) {
        let mut pair = [Slots::<()>::new(QueueId(1), 3), Slots::<()>::new(QueueId(1), 3)];
        let mut begun = vec![CommandId(0)];
        for (step, which) in steps {
            let command = begun[begun.len().saturating_sub(which + 1)];
            let key = RemoteKey(u32::try_from(which).expect("a few"));
            let ids = pair.each_mut().map(|slots| {
                let begun = match step {
                    0 => slots.begin(CompletesOn::Response, None),
                    1 => slots.begin(CompletesOn::ResponseAndSend, None),
                    2 => slots.begin(CompletesOn::Response, Some(key)),
                    3 => slots.begin(CompletesOn::ResponseAndSend, Some(key)),
                    4 => {
                        slots.handle_sent(slots.slot(command));
                        None
                    }
                    _ => {
                        let _ = slots.handle_response(response(command), None);
                        None
                    }
                };
                begun.map(|begun| begun.command)
            });
            prop_assert_eq!(ids[0], ids[1]);
            begun.extend(ids[0]);
        }
        let command = if is_recent { *recent.get(&begun) } else { CommandId(response_id) };
        let key = key.map(RemoteKey);
        let [fast, slow] = &mut pair;
        let expected = match slow.handle_response(response(command), key) {
            Ok(ResponseOutcome::Completed(completed)) => Some(completed.slot),
            _ => None,
        };
        prop_assert_eq!(fast.complete_fast(command, key).map(|(slot, _)| slot), expected);
        if expected.is_some() {
            prop_assert_eq!(fast.in_flight(), slow.in_flight());
        }
    }
}
