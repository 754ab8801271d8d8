//! Lists the RDMA devices of this machine.
//!
//! ```sh
//! cargo run --example devices
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    match verbs::devices() {
        Ok(devices) if devices.is_empty() => {
            println!("no RDMA device; `rdma link add rxe0 type rxe netdev eth0` makes a soft one");
            ExitCode::SUCCESS
        }
        Ok(devices) => {
            devices.iter().for_each(show);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn show(device: &verbs::DeviceInfo) {
    println!("{} (node GUID {:016x})", device.name, device.node_guid);
    for port in &device.ports {
        println!("  port {}: {}, MTU {}", port.number, port.state, port.active_mtu);
    }
}
