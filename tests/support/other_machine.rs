//! Another machine: a network namespace with a device of its own at the far end of a wire, which
//! rxe knows from Linux 7. The target listens at the near end too.

use std::{fs, path::Path, process::Command};

use super::{SUBSYSTEM, command, run, target};

/// Address of the target at the near end of the wire.
pub const TARGET_ADDRESS: &str = "10.20.0.1";
/// Name of the network namespace, and of the RDMA device in it.
pub const FAR: &str = "far";
/// Network interface of the near end of the wire.
const NEAR_INTERFACE: &str = "veth0";
/// Network interface of the far end, in its namespace.
const FAR_INTERFACE: &str = "veth1";

/// Environment variable of a process on the other machine.
const FAR_PROCESS: &str = "FAR";

/// Tells if this process is on the other machine.
#[must_use]
pub fn is_here() -> bool {
    std::env::var_os(FAR_PROCESS).is_some()
}

/// Runs a test of this program on the other machine.
///
/// # Panics
///
/// When it fails there.
pub fn run_test(test: &str) {
    add();
    let exe = std::env::current_exe().expect("our own path");
    let mut far = Command::new("ip");
    far.args(["netns", "exec", FAR]).arg(exe).env(FAR_PROCESS, "1");
    far.args(["--ignored", "--exact", test, "--nocapture"]);
    let output = run(&mut far, &[]);
    let (text, message) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}{message}");
    assert!(output.status.success(), "{test}, on another machine");
}

/// Has an end of the wire, or both, treat the packets that it sends by these arguments of `netem`.
///
/// # Panics
///
/// On another machine than the far one, and when `tc` refuses.
pub fn set_wire(from_target: bool, from_host: bool, netem: &str) {
    if from_target {
        let tc = format!("tc qdisc replace dev {NEAR_INTERFACE} root netem {netem}");
        command("nsenter", &format!("--net=/proc/1/ns/net {tc}"));
    }
    if from_host {
        command("tc", &format!("qdisc replace dev {FAR_INTERFACE} root netem {netem}"));
    }
}

/// Makes the other machine, unless it is there, and has the target listen at the wire to it.
///
/// # Panics
///
/// When the kernel refuses.
fn add() {
    if Path::new("/sys/class/net").join(NEAR_INTERFACE).exists() {
        return;
    }
    command("ip", "netns add far");
    // A packet of rxe may have 4 KiB.
    command("ip", "link add veth0 mtu 4400 type veth peer name veth1 mtu 4400 netns far");
    command("ip", &format!("addr add {TARGET_ADDRESS}/24 dev veth0"));
    command("ip", "link set veth0 up");
    command("ip", "-n far addr add 10.20.0.2/24 dev veth1");
    command("ip", "-n far link set veth1 up");
    command("rdma", "link add near type rxe netdev veth0");
    command("ip", "netns exec far rdma link add far type rxe netdev veth1");
    let port = "/sys/kernel/config/nvmet/ports/2";
    fs::create_dir(port).expect("there is one port");
    let attributes =
        [("trtype", "rdma"), ("adrfam", "ipv4"), ("traddr", TARGET_ADDRESS), ("trsvcid", "4420")];
    for (name, value) in attributes {
        fs::write(format!("{port}/addr_{name}"), value).expect("the port takes it");
    }
    target(&["link", "port", "2", SUBSYSTEM]);
}
