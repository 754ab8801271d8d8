use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::Status;

fn response(command: CommandId) -> Cqe {
    Cqe::new(command, Status::SUCCESS, 0)
}

#[test]
fn a_response_completes_once() {
    let mut slots = Slots::new(QueueId(1), 4);
    let command = slots.begin(Waits::Response).unwrap();
    assert!(slots.handle_response(response(command)).unwrap().is_some());
    assert!(slots.handle_response(response(command)).is_err());
}

#[test]
fn a_stale_generation_completes_nothing() {
    let mut slots = Slots::new(QueueId(1), 1);
    let first = slots.begin(Waits::Response).unwrap();
    slots.handle_response(response(first)).unwrap();
    let second = slots.begin(Waits::Response).unwrap();
    assert_ne!(first, second);
    assert!(slots.handle_response(response(first)).is_err());
    assert!(slots.handle_response(response(second)).unwrap().is_some());
}

#[test]
fn both_events_are_awaited_in_either_order() {
    let mut slots = Slots::new(QueueId(1), 2);
    let first = slots.begin(Waits::ResponseAndSend).unwrap();
    let second = slots.begin(Waits::ResponseAndSend).unwrap();
    assert_eq!(slots.handle_response(response(first)).unwrap(), None);
    assert!(slots.handle_response(response(first)).is_err(), "answered twice");
    assert_eq!(slots.handle_sent(slots.slot(first)).unwrap().slot, slots.slot(first));
    assert_eq!(slots.handle_sent(slots.slot(second)), None);
    assert!(slots.handle_response(response(second)).unwrap().is_some());
    assert_eq!(slots.in_flight(), 0);
}

#[test]
fn capacity_is_a_limit_and_ids_are_distinct() {
    for capacity in [1, 2, 3, 31, 127, 1023, 0x8000] {
        let mut slots = Slots::new(QueueId(1), capacity);
        let mut ids: Vec<_> =
            (0..capacity).map(|_| slots.begin(Waits::Response).unwrap().0).collect();
        assert_eq!(slots.begin(Waits::Response), None);
        assert_eq!(slots.room(), 0);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), usize::from(capacity));
        assert_eq!(slots.abandon().len(), usize::from(capacity));
        assert_eq!(slots.room(), slots.capacity());
    }
}

#[test]
fn every_command_id_is_survived() {
    let mut slots = Slots::new(QueueId(1), 5);
    let known = slots.begin(Waits::Response).unwrap();
    for id in 0..=u16::MAX {
        if CommandId(id) != known {
            assert!(slots.handle_response(response(CommandId(id))).is_err(), "{id}");
        }
    }
    assert!(slots.handle_response(response(known)).unwrap().is_some());
}

#[test]
fn generations_wrap() {
    let mut slots = Slots::new(QueueId(1), 3);
    for _ in 0..200_000 {
        let command = slots.begin(Waits::Response).unwrap();
        assert!(slots.handle_response(response(command)).unwrap().is_some());
    }
}

/// What may happen on a queue, with numbers to pick from what is there.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begin(bool),
    Respond(usize),
    Send(usize),
    Bogus(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<bool>().prop_map(Event::Begin),
        any::<usize>().prop_map(Event::Respond),
        any::<usize>().prop_map(Event::Send),
        any::<u16>().prop_map(Event::Bogus),
    ]
}

/// The simplest queue there is: which commands are in flight, and what each still waits for.
#[derive(Default)]
struct Model(HashMap<CommandId, (bool, bool)>);

impl Model {
    fn pick(&self, index: usize, waits: impl Fn(&(bool, bool)) -> bool) -> Option<CommandId> {
        let mut ids: Vec<_> =
            self.0.iter().filter(|(_, state)| waits(state)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[index % ids.len()])
    }

    /// Notes an event; returns whether the command is done.
    fn note(&mut self, id: CommandId, change: impl Fn(&mut (bool, bool))) -> bool {
        let state = self.0.get_mut(&id).expect("it was picked");
        change(state);
        let done = *state == (false, false);
        if done {
            self.0.remove(&id);
        }
        done
    }
}

proptest! {
    #[test]
    fn every_command_ends_exactly_once(capacity in 1u16..40, events in vec(event(), 0..400)) {
        let mut slots = Slots::new(QueueId(1), capacity);
        let mut model = Model::default();
        for event in events {
            match event {
                Event::Begin(both) => {
                    let waits = if both { Waits::ResponseAndSend } else { Waits::Response };
                    let begun = slots.begin(waits);
                    prop_assert_eq!(begun.is_some(), model.0.len() < usize::from(capacity));
                    if let Some(id) = begun {
                        prop_assert!(model.0.insert(id, (true, both)).is_none(), "an id twice");
                    }
                }
                Event::Respond(index) => {
                    let Some(id) = model.pick(index, |state| state.0) else { continue };
                    let finished = slots.handle_response(response(id)).expect("it waits");
                    prop_assert_eq!(finished.is_some(), model.note(id, |state| state.0 = false));
                }
                Event::Send(index) => {
                    let Some(id) = model.pick(index, |state| state.1) else { continue };
                    let finished = slots.handle_sent(slots.slot(id));
                    prop_assert_eq!(finished.is_some(), model.note(id, |state| state.1 = false));
                }
                Event::Bogus(id) => {
                    let waits = model.0.get(&CommandId(id)).is_some_and(|state| state.0);
                    if !waits {
                        prop_assert!(slots.handle_response(response(CommandId(id))).is_err());
                    }
                }
            }
            prop_assert_eq!(slots.in_flight(), model.0.len());
        }
        prop_assert_eq!(slots.abandon().len(), model.0.len());
    }
}
