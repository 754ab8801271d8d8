//! Commands on ranges of blocks.

use rdma_host::{
    RangeCommands,
    error::Rejected,
    wire::{BlockRange, OptionalCommand, Status},
};

use super::*;

#[test]
fn commands_on_ranges_go_over_any_path() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        for command in [OptionalCommand::Compare, OptionalCommand::WriteZeroes] {
            namespace.require(command).expect("both ports have it");
        }
        assert!(namespace.transfer_bytes_max() >= 4096);
        assert_eq!(namespace.check_range(1020, 4 * 512).expect("it fits"), 4);
        assert!(namespace.check_range(1021, 4 * 512).is_err());
        let mut buffer = subsystem.allocate(512).expect("memory");
        buffer.fill(b'A');
        let buffer = namespace.write_with_force_unit_access(7, buffer).await;
        let buffer = buffer.expect("two paths live");
        let buffer = namespace.compare(7, buffer).await.expect("they are the same");
        // Four commands of one block, on each path in turn.
        namespace.write_zeroes(6..10, false, Some(512)).await.expect("two paths live");
        assert_eq!(all.ports.each_ref().map(|port| port.count(0x08)), [2, 2]);
        let failed = namespace.compare(7, buffer).await.expect_err("they differ");
        let Error::Rejected(Rejected::Command { status, .. }) = failed.error else {
            panic!("{failed}");
        };
        assert_eq!(status.code(), Status::COMPARE_FAILURE);
        // The block has zeros, and gets ones: once.
        let mut pair = subsystem.allocate(1024).expect("memory");
        pair.fill(1);
        pair.copy_in(0, &[0; 512]);
        let pair = namespace.compare_and_write(7, pair).await.expect("it has zeros");
        assert_eq!(pair.len(), 1024);
        let failed = namespace.compare_and_write(7, pair).await.expect_err("it has ones");
        assert!(failed.to_string().contains("compare failure"), "{failed}");
        let list = subsystem.allocate(4096).expect("memory");
        let list = namespace.deallocate(&[BlockRange { lba: 0, blocks: 8 }], list).await;
        assert_eq!(list.expect("two paths live").len(), 4096);
        let error = namespace.verify(1020..1030, None).await.expect_err("beyond the end");
        assert!(matches!(error, Error::Misuse(_)), "{error}");
        subsystem.shutdown().await;
    });
}
