//! The end by the owner's wish comes soon, whatever state the controller is in, with the target
//! gone. The same over a silent wire is in `flaps`.

use tests::shutdown::{STATES, cancel_after, shut_down_in};

use super::*;

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_end_comes_soon_in_every_state() {
    in_runtime(async {
        for state in STATES {
            let close = async || change_target(&["unlink", "port", "1", SUBSYSTEM]).await;
            let took = shut_down_in(state, &quick(), close).await;
            println!("{state}, the port closed: ended {took:?} after the wish");
            change_target(&["link", "port", "1", SUBSYSTEM]).await;
        }
        // There is no machine at the first address, and no listener at the second.
        let mut options = quick();
        options.reconnect.first_connect = true;
        for address in ["10.10.10.77:4420".parse(), format!("{}:4999", address()).parse()] {
            options.address = address.expect("an address");
            for time in [0, 100, 700, 1500] {
                let time = Duration::from_millis(time);
                let took = cancel_after(time, &options).await;
                println!(
                    "connecting to {} for {time:?}: ended {took:?} after the wish",
                    options.address
                );
            }
        }
    });
}
