//! The target: up, shown, changed, down, and used by the kernel's own initiator.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use crate::support::{Bed, TARGETS, expect_success, text};

const BASIC: &str = "nqn.2026-11.org.soft-roce:basic";
const KEY: &str = "DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:";

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn every_example_comes_up_and_goes_down() {
    let bed = Bed::new();
    for entry in fs::read_dir(TARGETS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let script = format!(
            "set -e
             test \"$SOFT_ROCE_TARGET\" = {0}
             soft-roce target show
             soft-roce target down
             soft-roce target show
             test -z \"$(ls /sys/kernel/config/nvmet/subsystems /sys/kernel/config/nullb | \
                 grep -E 'nqn|roce')\"
             soft-roce target up {0}
             if soft-roce target up {0}; then exit 3; fi
             soft-roce target show --json",
            path.display()
        );
        let output = bed.with_target(&name, &script);
        expect_success(&output);
        let seen = text(&output.stdout);
        assert!(seen.contains(&format!("org.soft-roce:{}", first_subsystem(&name))), "{seen}");
        assert!(seen.contains("no target is up\n") && seen.contains("\"subsystems\""), "{seen}");
        assert!(text(&output.stderr).contains("there already"), "{}", text(&output.stderr));
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_kernels_initiator_reads_what_it_wrote() {
    let bed = Bed::new();
    let script = format!(
        "set -e
         {connect}
         head -c 3000000 /dev/urandom > /run/data; truncate -s %4096 /run/data
         for n in 1 2; do
             disk=$(disk $n)
             dd if=/run/data of=$disk bs=64k oflag=direct conv=notrunc status=none
             dd if=$disk of=/run/back bs=64k iflag=direct count=46 status=none
             cmp -n $(stat -c %s /run/data) /run/data /run/back
         done
         test $(blockdev --getss $(disk 1)) = 512 -a $(blockdev --getss $(disk 2)) = 4096
         soft-roce target show",
        connect = connect(BASIC, "")
    );
    let output = bed.with_target("basic", &script);
    expect_success(&output);
    assert!(text(&output.stdout).contains("controllers: 1"), "{}", text(&output.stdout));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn an_authenticated_target_wants_the_key() {
    let bed = Bed::new();
    let file = fs::read_to_string(format!("{TARGETS}/auth.toml")).unwrap();
    let key = |name: &str| {
        let line = file.lines().find(|line| line.starts_with(name)).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let nqn = "nqn.2026-11.org.soft-roce:auth";
    let keys = format!(
        ",dhchap_secret={},dhchap_ctrl_secret={}",
        key("dhchap_key"),
        key("dhchap_ctrl_key")
    );
    let script = format!(
        "if ({}) 2>/dev/null; then exit 9; fi
         set -e
         {}
         disk 1
         soft-roce target show",
        connect(nqn, ""),
        connect(nqn, &keys)
    );
    let output = bed.with_target("auth", &script);
    expect_success(&output);
    assert!(text(&output.stdout).contains("controllers: 1"));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn every_lever_moves_something() {
    let bed = Bed::new();
    let script = format!(
        "set -e
         R=/sys/kernel/config/nvmet; S=$R/subsystems/{BASIC}; H=nqn.x:h
         {connect}
         soft-roce target set namespace {BASIC} 1 enable 0; grep -q 0 $S/namespaces/1/enable
         soft-roce target set namespace {BASIC} 1 enable 1; grep -q 1 $S/namespaces/1/enable
         soft-roce target set ana 1 2 inaccessible
         grep -q inaccessible $R/ports/1/ana_groups/2/ana_state
         soft-roce target set ana 1 2 non-optimized
         grep -q non-optimized $R/ports/1/ana_groups/2/ana_state
         soft-roce target fatal {BASIC}
         soft-roce target set subsystem {BASIC} qid_max 1; grep -q 1 $S/attr_qid_max
         soft-roce target unlink port 1 {BASIC}; test ! -e $R/ports/1/subsystems/{BASIC}
         soft-roce target set port 1 inline_data_size 8192
         soft-roce target link port 1 {BASIC}; test -e $R/ports/1/subsystems/{BASIC}
         soft-roce target set subsystem {BASIC} allow_any_host 0
         soft-roce target allow {BASIC} $H; test -e $S/allowed_hosts/$H
         soft-roce target set host $H dhchap_hash sha512; grep -q 512 $R/hosts/$H/dhchap_hash
         soft-roce target set host $H key {KEY}; grep -q DHHC $R/hosts/$H/dhchap_key
         soft-roce target disallow {BASIC} $H; test ! -e $S/allowed_hosts/$H
         soft-roce target set subsystems/{BASIC}/attr_allow_any_host 1
         soft-roce target set backing {BASIC} 1 badblocks +1-5
         grep -q '1 5' /sys/kernel/config/nullb/roce1/badblocks
         soft-roce target show",
        connect = connect(BASIC, "")
    );
    // A known fault of 7.x: its initiator warns of itself when a namespace goes while it looks.
    let target = format!("{TARGETS}/basic.toml");
    let allow = ["--allow", "check_flush_dependency", "--timeout", "60", "--target", &target];
    let output = bed.shell(&allow, &script);
    expect_success(&output);
    assert!(text(&output.stdout).contains("qid_max 1\n"), "{}", text(&output.stdout));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn refusals_name_attribute_and_reason() {
    let bed = Bed::new();
    let script = format!(
        "soft-roce target set subsystem {BASIC} qid_max 500
         soft-roce target set ana 1 2 bogus
         soft-roce target set port 1 max_queue_size 64
         soft-roce target set subsystem {BASIC} nonsense 1
         soft-roce target set subsystem nqn.none qid_max 1
         soft-roce target set namespace {BASIC} one enable 0
         soft-roce target set ../../x 1
         soft-roce target fatal {BASIC} 9
         soft-roce target set what"
    );
    let output = bed.with_target("basic", &script);
    let error = text(&output.stderr);
    let expected = [
        "attr_qid_max = \"500\": Invalid argument",
        "Invalid value 'bogus' for ana_state",
        "param_max_queue_size = \"64\": Permission denied",
        "has no nonsense",
        "nqn.none: not there",
        "NSID is a number",
        "not below",
        "no such controller",
        "set what?",
    ];
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.starts_with("soft-roce: ") && line.contains(part), "{line:?} lacks {part:?}");
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn bad_target_files_run_nothing() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let cases = [
        ("subsystems = 3", "line 1"),
        ("[[subsystems]]\nnqn = \"n\"\ncolour = 1", "colour"),
        ("[[subsystems]]\nnqn = \"n\"\n[[ports]]\naddress = \"10.99.0.1\"", "10.99.0.1"),
        ("[[subsystems]]\nnqn = \"n\"\nqid_max = 500", "attr_qid_max"),
        (
            "[[subsystems]]\nnqn = \"n\"\nnamespaces = [{ backing.file.path = \"none\" }]",
            "none: No such file",
        ),
    ];
    let file = folder.path().join("bad.toml");
    for (text_of_file, expected) in cases {
        fs::write(&file, text_of_file).unwrap();
        let output = bed.shell(&["--target", file.to_str().unwrap()], "echo ran");
        let error = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    let output = bed.shell(&["--target", "/nonexistent.toml"], "echo ran");
    assert!(text(&output.stderr).contains("/nonexistent.toml") && output.stdout.is_empty());
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn every_backing_holds_data() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("t.toml");
    fs::write(
        &file,
        format!(
            "[[subsystems]]\nnqn = \"{BASIC}\"\nnamespaces = [\
             {{ backing = {{ ram = {{ size = \"8MiB\" }} }} }},\
             {{ backing = {{ file = {{ path = \"disk\", size = \"8MiB\", block_size = 512 }} }} }},\
             {{ backing = {{ null_blk = {{ size = \"8MiB\", completion_nsec = 2000000 }} }} }},\
             {{ backing = {{ file = {{ path = \"plain\", size = \"8MiB\" }} }} }}]\n"
        ),
    )
    .unwrap();
    let script = format!(
        "set -e
         {}
         head -c 1048576 /dev/urandom > /run/data
         for n in 1 2 3 4; do
             disk=$(disk $n)
             dd if=/run/data of=$disk bs=64k oflag=direct status=none
             dd if=$disk of=/run/back bs=64k count=16 iflag=direct status=none
             cmp /run/data /run/back
         done
         sync; cmp -n 1048576 /run/data {}/disk && echo on the host",
        connect(BASIC, ""),
        folder.path().display()
    );
    let output = bed.shell(&["--timeout", "60", "--target", file.to_str().unwrap()], &script);
    expect_success(&output);
    assert_eq!(text(&output.stdout), "on the host\n");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn native_sets_up_the_same_and_takes_it_down() {
    let bed = Bed::new();
    // The guest is a machine whose kernel has everything built in; only `modprobe` knows nothing.
    let folder = TempDir::new().unwrap();
    let modprobe = folder.path().join("modprobe");
    fs::write(&modprobe, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&modprobe, fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "set -e
         unset SOFT_ROCE; PATH={}:$PATH
         rdma link del rxe0; ip link del dum0
         soft-roce native up {TARGETS}/basic.toml
         soft-roce native status
         {}
         disk 1
         echo 1 > /sys/class/nvme/nvme0/delete_controller
         soft-roce native down
         soft-roce native status
         test ! -e /sys/class/net/softroce0",
        folder.path().display(),
        connect(BASIC, "")
    );
    let output = bed.shell(&["--timeout", "60"], &script);
    expect_success(&output);
    let seen = text(&output.stdout);
    assert!(seen.contains("rxe_softroce0 is there") && seen.contains("is not there"), "{seen}");
}

/// Connects the kernel's initiator, as `nvme connect` does, and defines `disk NSID`: the number in
/// a disk's name is the order in which the kernel found the namespaces, not their own number.
fn connect(nqn: &str, more: &str) -> String {
    format!(
        "disk() {{ while :; do for disk in /sys/block/nvme0n*; do
             if test \"$(cat $disk/nsid 2>/dev/null)\" = $1 -a -b /dev/${{disk##*/}}
             then echo /dev/${{disk##*/}}; return; fi
         done; sleep 0.05; done; }}
         echo transport=rdma,traddr=10.10.10.1,trsvcid=4420,nqn={nqn},\
         hostnqn=nqn.2026-11.org.soft-roce:host,\
         hostid=6a1d8e0c-5d6b-4c0f-8a33-2b1f0f6f4c01{more} > /dev/nvme-fabrics"
    )
}

fn first_subsystem(example: &str) -> &str {
    if example == "multi" { "paths" } else { example }
}

/// Blocks that are written through the one subsystem are read from the other, both by the kernel.
#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn commands_pass_through_to_another_subsystem() {
    let bed = Bed::new();
    let script = format!(
        "set -e
         {connect}
         of() {{ for disk in /sys/block/nvme[0-9]n*; do
             if test $(cat $disk/nsid) = $2 && grep -q $1 $disk/device/subsysnqn
             then echo /dev/${{disk##*/}}; return; fi
         done; }}
         until test \"$(of passthru 2)\"; do sleep 0.05; done
         for n in 1 2; do
             head -c 1048576 /dev/urandom > /run/data
             dd if=/run/data of=$(of passthru $n) bs=64k oflag=direct conv=notrunc status=none
             dd if=$(of disk $n) of=/run/back bs=64k iflag=direct count=16 status=none
             cmp /run/data /run/back
         done
         soft-roce target show
         soft-roce target down
         soft-roce target show
         ls /sys/class/nvme",
        connect = connect("nqn.2026-11.org.soft-roce:passthru", "")
    );
    let output = bed.with_target("passthru", &script);
    expect_success(&output);
    let seen = text(&output.stdout);
    assert!(seen.contains("passes its commands through to /dev/nvme0\n"), "{seen}");
    let (_, down) = seen.split_once("no target is up\n").expect("it is down");
    assert!(!down.contains("nvme0"), "{seen}");
}

/// Zones are reported as the file says, and written in their order.
#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn zoned_namespaces_have_the_zones_of_the_file() {
    let bed = Bed::new();
    let script = format!(
        "set -e
         {connect}
         for n in 1 2; do
             queue=/sys/block/$(basename $(disk $n))/queue
             echo $n $(cat $queue/zoned $queue/nr_zones $queue/chunk_sectors \
                 $queue/max_open_zones $queue/max_active_zones)
         done
         echo 3 $(cat /sys/block/$(basename $(disk 3))/queue/zoned)
         dd if=/dev/urandom of=$(disk 1) bs=64k count=4 oflag=direct conv=notrunc status=none
         if dd if=/dev/zero of=$(disk 1) bs=64k count=1 seek=9 oflag=direct conv=notrunc \
             2>/dev/null; then exit 9; fi",
        connect = connect("nqn.2026-11.org.soft-roce:zoned", "")
    );
    let output = bed.with_target("zoned", &script);
    expect_success(&output);
    let expected = "1 host-managed 64 2048 0 0\n2 host-managed 16 8192 2 3\n3 none\n";
    assert_eq!(text(&output.stdout), expected);
}
