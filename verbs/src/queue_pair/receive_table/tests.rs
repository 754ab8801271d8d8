use super::*;

fn parts(token: u64) -> (u32, u32) {
    let token = Token::unpack(token).expect("the tables pack their tokens");
    (token.slot, token.generation)
}

#[test]
fn tokens_out_of_range_are_stale() {
    let mut table = ReceiveTable::<()>::new(4, 0);
    assert_eq!(table.complete(4, 0), None);
    assert_eq!(table.complete(0, 0), None);
}

#[test]
fn receives_come_back_in_any_order_and_once() {
    let mut table = ReceiveTable::new(3, u32::MAX);
    let tokens: Vec<_> = (0..3).map(|n| parts(table.take(n).expect("there is room"))).collect();
    assert_eq!(table.take(3), Err(3));
    for index in [1, 2, 0] {
        let (slot, generation) = tokens[index];
        assert_eq!(table.complete(slot, generation), Some(index));
        assert_eq!(table.complete(slot, generation), None);
    }
    assert_eq!(table.credits(), 3);
    let (slot, generation) = tokens[0];
    table.take(7).expect("there is room");
    assert_eq!(table.complete(slot, generation), None, "an older generation");
}

#[test]
fn a_drained_table_holds_nothing() {
    let mut table = ReceiveTable::new(3, 0);
    table.take('x').expect("there is room");
    table.take('y').expect("there is room");
    assert_eq!(table.drain().count(), 2);
    assert_eq!(table.drain().count(), 0);
}
