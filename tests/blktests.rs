//! Cases of blktests for the kernel's initiator over RDMA, proved of ours: each test names the case
//! whose work it does.
//!
//! Some are elsewhere: 010 is `load`, and with 011 to 013 `attach`, 041 to 044 `authentication`,
//! and in `recovery` are 048 (`queues_come_and_go_with_the_target`) and 061
//! (`data_survives_a_restart_of_the_target`); 068 is `multipath`
//! (`commands_are_held_while_no_path_is_usable_and_fail_in_the_end`, and
//! `with_all_paths_gone_commands_are_held_and_go_on_when_one_is_back`). Events of a live
//! connection, which have no case of their own there, are in `blktests/events.rs`. Of SPDK's cases
//! for targets, `fused_ordering` is `nvm_commands` (`a_counter_is_shared_by_many`), `nvm_limits`
//! that of nvme/065. 054 is `nvm_commands` (`two_hosts_share_a_namespace`), 057 `multipath`
//! (`the_access_changes_under_load`), and 058 there too
//! (`a_namespace_is_replaced_again_and_again`).

// bed: --target tests/targets/events.toml

#[path = "blktests/commands.rs"]
mod commands;
#[path = "blktests/control.rs"]
mod control;
#[path = "blktests/events.rs"]
mod events;

use std::time::Duration;

use rdma_host::{Controller, Namespace, wire::NamespaceId};
use tests::{SUBSYSTEM, controllers, noise, nvmf_ok, options, target, uri, wait_for};

/// The names that the target file gives to namespace 1.
const UUID: &str = "f2a1c5de-7a2b-4a9c-9d6e-1f3b5c7d9e01";
const NGUID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        // Against hanging for ever; nothing here takes a fraction of it.
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends")
    })
}

/// Runs `soft-roce target`, off the runtime's threads.
async fn change_target(arguments: &[&str]) {
    let arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
    let change = move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        target(&arguments)
    };
    tokio::task::spawn_blocking(change).await.expect("it ends");
}

/// Sets an attribute of a namespace of the target.
async fn set(namespace: u32, attribute: &str, value: &str) {
    change_target(&["set", "namespace", SUBSYSTEM, &namespace.to_string(), attribute, value]).await;
}

async fn connected() -> Controller {
    Controller::connect(&options()).await.expect("the target is there")
}

async fn write(controller: &Controller, namespace: &Namespace, lba: u64, data: &[u8]) {
    let mut buffer = controller.allocate(data.len()).expect("memory");
    buffer.copy_in(0, data);
    namespace.write(lba, buffer).await.expect("the target writes");
}

async fn read(controller: &Controller, namespace: &Namespace, lba: u64, bytes: usize) -> Vec<u8> {
    let buffer = controller.allocate(bytes).expect("memory");
    let buffer = namespace.read(lba, buffer).await.expect("the target reads");
    let mut data = vec![0; bytes];
    buffer.copy_out(0, &mut data);
    data
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let target = uri(SUBSYSTEM);
    let all = [arguments, &[&target, "-o", "json"]].concat();
    serde_json::from_slice(&nvmf_ok(&all, &[])).expect("JSON")
}

fn text(arguments: &[&str]) -> String {
    let target = uri(SUBSYSTEM);
    String::from_utf8(nvmf_ok(&[arguments, &[&target]].concat(), &[])).expect("UTF-8")
}

/// The first namespace of the target file, and the second.
const FIRST: NamespaceId = NamespaceId(1);
const SECOND: NamespaceId = NamespaceId(2);
/// The one that comes and goes.
const THIRD: NamespaceId = NamespaceId(3);

/// The target has no controller any more.
fn wait_for_none() {
    wait_for("all controllers are gone", Duration::from_secs(10), || controllers(SUBSYSTEM) == 0);
}

/// Random data for `blocks` blocks.
fn blocks_of_noise(namespace: &Namespace, blocks: u64) -> Vec<u8> {
    let bytes = blocks * u64::from(namespace.info().block_size);
    noise(usize::try_from(bytes).expect("memory has room"), blocks)
}
