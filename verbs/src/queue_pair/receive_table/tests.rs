use super::*;

fn token(kind: WorkKind, slot: u32, generation: u32) -> u64 {
    Token { kind, slot, generation }.pack()
}

#[test]
fn tokens_out_of_range_are_stale() {
    let mut table = ReceiveTable::<()>::new(4, 0);
    assert_eq!(table.complete(token(WorkKind::Receive, 4, 0)), None);
    assert_eq!(table.complete(token(WorkKind::Receive, 0, 0)), None, "nothing is held");
}

#[test]
fn receives_come_back_in_any_order_and_once() {
    let mut table = ReceiveTable::new(3, u32::MAX);
    let tokens: Vec<_> = (0..3).map(|n| table.take(n).expect("there is room")).collect();
    assert_eq!(table.take(3), Err(3));
    for index in [1, 2, 0] {
        assert_eq!(table.complete(tokens[index]), Some(index));
        assert_eq!(table.complete(tokens[index]), None);
    }
    assert_eq!(table.credits(), 3);
    table.take(7).expect("there is room");
    assert_eq!(table.complete(tokens[0]), None, "an older generation");
}

#[test]
fn a_token_is_good_for_one_completion_of_its_slot_and_kind() {
    for last in [7, u32::MAX - 1, u32::MAX] {
        let mut table = ReceiveTable::new(3, last);
        let tokens: Vec<_> = (0..3).map(|n| table.take(n).expect("there is room")).collect();
        let (renewed, held) = table.renew(tokens[1]).expect("it is out");
        assert_eq!((renewed, *held), (token(WorkKind::Receive, 1, last.wrapping_add(2)), 1));
        assert_eq!(table.renew(tokens[1]), None, "renewed twice");
        assert_eq!(table.complete(tokens[1]), None, "completed after it was renewed");
        for stale in [
            token(WorkKind::Send, 1, last.wrapping_add(2)),
            token(WorkKind::Receive, 0, last.wrapping_add(2)),
            token(WorkKind::Receive, 1, last.wrapping_add(3)),
        ] {
            assert_eq!(table.renew(stale), None, "{stale:#x}");
            assert_eq!(table.complete(stale), None, "{stale:#x}");
        }
        assert_eq!(table.complete(renewed), Some(1));
    }
}

#[test]
fn a_drained_table_holds_nothing() {
    let mut table = ReceiveTable::new(3, 0);
    table.take('x').expect("there is room");
    table.take('y').expect("there is room");
    assert_eq!(table.drain().count(), 2);
    assert_eq!(table.drain().count(), 0);
}
