use super::*;
use crate::wire::ControllerId;

const OWN: Uuid = Uuid::from_u128(1);
const LOST: Uuid = Uuid::from_u128(2);

fn report(reservation: ReservationType, hosts: &[(Uuid, u64)]) -> ReservationReport {
    let registrant = |&(host, key): &(Uuid, u64)| Registrant {
        controller: ControllerId(0xffff),
        holds_reservation: false,
        key,
        host: host.into_bytes(),
    };
    ReservationReport {
        generation: 1,
        reservation,
        count: u16::try_from(hosts.len()).unwrap(),
        persists: false,
        registrants: hosts.iter().map(registrant).collect(),
    }
}

#[test]
fn a_path_is_preempted_by_its_key() {
    let held = ReservationType::WRITE_EXCLUSIVE_ALL;
    let preempting = |report| preempt(&report, OWN, LOST);
    assert_eq!(
        preempting(report(held, &[(LOST, 8), (OWN, 9)])),
        Ok(ReservationCommand::Acquire {
            action: AcquireAction::PreemptAndAbort,
            reservation: held,
            current_key: 9,
            preempt_key: 8,
        })
    );
    for (report, reason) in [
        (report(ReservationType(0), &[(LOST, 8), (OWN, 9)]), "no reservation"),
        (report(held, &[(LOST, 8)]), "the live path is not registered"),
        (report(held, &[(OWN, 9)]), "the path is not registered"),
        (report(held, &[(LOST, 9), (OWN, 9)]), "the same key"),
    ] {
        let refused = preempting(report).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn what_is_registered_afterwards_is_no_proof() {
    let held = ReservationType::WRITE_EXCLUSIVE_ALL;
    let check = |report| check_preempted(&report, LOST);
    assert_eq!(check(report(held, &[(OWN, 9)])), Ok(()));
    assert!(check(report(held, &[(LOST, 8), (OWN, 9)])).is_err());
    assert!(check(report(ReservationType(0), &[(OWN, 9)])).is_err());
    let cut = ReservationReport { count: 2, ..report(held, &[(OWN, 9)]) };
    assert!(check(cut).is_err(), "it may be the one that is not shown");
}

#[test]
fn paths_of_one_host_identifier_are_refused() {
    let host = crate::HostIdentity::from_id(OWN);
    let nqn = "nqn.2026-11.org.soft-roce:tests".parse().unwrap();
    let [first, second] = [4420, 4421].map(|port| ([192, 0, 2, 1], port).into());
    let connect = crate::ConnectOptions::new(first, nqn, host);
    let options = super::super::SubsystemOptions::new(connect).path(second, None);
    assert!(options.check().is_ok());
    assert!(options.clone().host_ids([OWN, LOST]).check().is_ok());
    assert_eq!(options.of_path(1).host.id, OWN);
    let options = options.host_ids([LOST, LOST]);
    assert_eq!(options.of_path(1).host.id, LOST);
    let refused = options.check().unwrap_err().to_string();
    assert!(refused.contains("two paths have the host identifier"), "{refused}");
    let refused = options.host_ids([OWN]).check().unwrap_err().to_string();
    assert_eq!(refused, "1 host identifiers are given for 2 paths; give one for each");
}
