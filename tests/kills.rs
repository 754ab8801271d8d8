//! Loss of a port, a process on either side, or our device under load: every request ends with an
//! error and its buffer, nothing is left behind, and the same process connects again.

// bed: waits --target tests/targets/deep.toml

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rdma_host::{Controller, Error};
use tests::{
    SUBSYSTEM, command, controllers,
    load::{HANG_TIMEOUT, Load, quick_options},
    options,
    process_resources::ProcessResources,
    target,
    target::Target,
    wait_for,
};
use tokio::runtime::Runtime;
use verbs::RdmaCore;

fn runtime() -> Runtime {
    let runtime = Runtime::new().expect("a runtime");
    // Whatever is made once, and stays, is made now.
    runtime.block_on(async {
        let controller = Controller::connect(&quick_options()).await.expect("the target is there");
        controller.shutdown().await;
    });
    runtime
}

/// Connects and reads, then lets go of everything: as much is held as before.
fn works_again(runtime: &Runtime, before: &ProcessResources) {
    runtime.block_on(async {
        let load = Load::start(&quick_options()).await.expect("it connects again");
        assert!(load.is_running());
        load.stop().await;
    });
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    before.wait_until_released("rxe0");
}

/// Resources while no host is connected.
fn at_rest() -> ProcessResources {
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    ProcessResources::now()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_target_port_is_closed() {
    let runtime = runtime();
    let before = at_rest();
    let load = runtime.block_on(Load::start(&quick_options())).unwrap();
    target(&["unlink", "port", "1", SUBSYSTEM]);
    let cause = runtime.block_on(load.failure());
    assert!(matches!(cause, Error::Transport(_)), "{cause}");
    target(&["link", "port", "1", SUBSYSTEM]);
    works_again(&runtime, &before);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_target_port_is_removed() {
    let runtime = runtime();
    let before = at_rest();
    let load = runtime.block_on(Load::start(&quick_options())).unwrap();
    let port = Path::new("/sys/kernel/config/nvmet/ports/1");
    let names = ["addr_trtype", "addr_adrfam", "addr_traddr", "addr_trsvcid"];
    let kept = names.map(|name| fs::read_to_string(port.join(name)).unwrap());
    target(&["unlink", "port", "1", SUBSYSTEM]);
    fs::remove_dir(port).unwrap();
    let cause = runtime.block_on(load.failure());
    assert!(matches!(cause, Error::Transport(_)), "{cause}");
    let refused = runtime
        .block_on(Controller::connect(&quick_options()).into_future())
        .err()
        .expect("nobody listens");
    assert!(refused.to_string().contains("nothing listens"), "{refused}");
    fs::create_dir(port).unwrap();
    for (name, value) in names.iter().zip(kept) {
        fs::write(port.join(name), value).unwrap();
    }
    target(&["link", "port", "1", SUBSYSTEM]);
    works_again(&runtime, &before);
}

/// A second address of the bed's target, where another process serves.
fn elsewhere() -> SocketAddr {
    SocketAddr::new(options().address.ip(), 4421)
}

/// In the process that is to be killed: serves until then.
fn serve() {
    let target = Target::over(Arc::new(RdmaCore::new()), elsewhere(), Box::new(|_, _| {}));
    Runtime::new().expect("a runtime").block_on(target.run());
}

/// Another process of one of these tests.
fn ourselves(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(["--ignored", "--exact", "--nocapture", test]).stderr(Stdio::null());
    command
}

/// A target there.
fn target_process() -> Child {
    let mut command = ourselves("the_target_process_is_killed");
    command.env("SERVE", "1").stdout(Stdio::null()).spawn().expect("it starts")
}

/// A load on a target in another process, which is connected to as soon as it listens.
fn load_elsewhere(runtime: &Runtime) -> Load {
    let options = quick_options().address(elsewhere());
    let mut load = None;
    wait_for("the target process listens", HANG_TIMEOUT, || {
        load = runtime.block_on(Load::start(&options)).ok();
        load.is_some()
    });
    load.expect("just made")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_target_process_is_killed() {
    if std::env::var_os("SERVE").is_some() {
        return serve();
    }
    let runtime = runtime();
    let before = at_rest();
    for _ in 0..3 {
        let mut process = target_process();
        let load = load_elsewhere(&runtime);
        process.kill().unwrap();
        process.wait().unwrap();
        let cause = runtime.block_on(load.failure());
        assert!(matches!(cause, Error::Transport(_)), "{cause}");
    }
    works_again(&runtime, &before);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_target_process_is_frozen() {
    let runtime = runtime();
    let before = at_rest();
    let mut process = target_process();
    let load = load_elsewhere(&runtime);
    command("kill", &format!("-STOP {}", process.id()));
    let cause = runtime.block_on(load.failure());
    println!("a frozen target: {cause}");
    process.kill().unwrap();
    process.wait().unwrap();
    works_again(&runtime, &before);
}

/// In the process that is to be killed: reads until then, and says when it does.
fn read() {
    let runtime = Runtime::new().expect("a runtime");
    let _load = runtime.block_on(Load::start(&quick_options())).expect("it connects");
    println!("reading");
    std::thread::sleep(HANG_TIMEOUT);
}

/// The kernel takes back what the process had on the device, and the target what it had there for
/// the process, which said no word.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn our_process_is_killed() {
    if std::env::var_os("READ").is_some() {
        return read();
    }
    let runtime = runtime();
    let before = at_rest();
    for _ in 0..3 {
        let mut command = ourselves("our_process_is_killed");
        let mut process = command.env("READ", "1").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.ends_with("reading")), "it reads");
        process.kill().unwrap();
        process.wait().unwrap();
        works_again(&runtime, &before);
    }
}

/// The device goes away under load, and comes back: no new process is needed. Runs last of its
/// file, by its name.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn z_the_device_is_deleted() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if release.starts_with("6.") {
        println!("SKIPPED: before 7 the kernel deletes no device that a process has open");
        return;
    }
    let runtime = runtime();
    let before = at_rest();
    for _ in 0..3 {
        let load = runtime.block_on(Load::start(&quick_options())).unwrap();
        command("rdma", "link delete rxe0");
        let cause = runtime.block_on(load.failure());
        assert!(matches!(cause, Error::Transport(_)), "{cause}");
        command("rdma", "link add rxe0 type rxe netdev dum0");
        target(&["unlink", "port", "1", SUBSYSTEM]);
        target(&["link", "port", "1", SUBSYSTEM]);
        works_again(&runtime, &before);
    }
}
