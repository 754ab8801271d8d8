use super::*;

fn wrong(text: &str) -> String {
    let reason = Target::parse(text).unwrap_err();
    assert!(!reason.contains('\n'), "{reason:?} is not one line");
    reason
}

#[test]
fn one_name_is_a_whole_file() {
    let target = Target::parse("[[subsystems]]\nnqn = \"nqn.x\"\n").unwrap();
    assert!(target.subsystems[0].allows_any_host());
    assert_eq!(target.subsystems[0].namespaces, [Namespace::default()]);
    assert_eq!(target.ports, [Port::default()]);
    assert_eq!(target.ports[0].address().to_string(), ADDRESS);
}

#[test]
fn every_example_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        Target::load(&entry.unwrap().path()).unwrap();
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn backings_have_their_own_words() {
    let target = Target::parse(
        r#"
        [[subsystems]]
        nqn = "nqn.x"
        namespaces = [
            { backing = { ram = { size = "8MiB" } } },
            { nsid = 7, backing = { null_blk = { size = "1GiB", block_size = 4096 } } },
            { backing = { file = { path = "disk", size = "1M", block_size = 512 } } },
        ]
        "#,
    )
    .unwrap();
    let numbers: Vec<_> = target.subsystems[0].numbered().map(|(nsid, _)| nsid).collect();
    assert_eq!(numbers, [1, 7, 3]);
    let Backing::NullBlk(null) = &target.subsystems[0].namespaces[1].backing else { panic!() };
    assert_eq!((null.size, null.block_size, null.memory_backed), (1 << 30, 4096, true));
}

#[test]
fn files_are_found_from_the_target_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let text = "[[subsystems]]\nnqn = \"n\"\nnamespaces = [{ backing.file.path = \"disk\" }]\n";
    fs::write(&path, text).unwrap();
    let target = Target::load(&path).unwrap();
    let Backing::File(file) = &target.subsystems[0].namespaces[0].backing else { panic!() };
    assert_eq!(file.path, folder.path().join("disk"));
}

#[test]
fn referrals_lead_to_the_bed_by_default() {
    let text = "[[subsystems]]\nnqn = \"n\"\n[[ports]]\n\
                referrals = [{ service = 4421 }, { address = \"fd00::1\" }]\n";
    let target = Target::parse(text).unwrap();
    let [one, two] = target.ports[0].referrals.as_slice() else { panic!("two referrals") };
    assert_eq!((one.address().to_string().as_str(), one.service), (ADDRESS, Some(4421)));
    assert_eq!((two.address().to_string().as_str(), two.service), ("fd00::1", None));
    assert!(wrong(&format!("{text}[[ports.referrals]]\nport = 1\n")).starts_with("line "));
}

#[test]
fn hosts_close_a_subsystem() {
    let text = "[[subsystems]]\nnqn = \"n\"\nhosts = [\"h\"]\n";
    assert!(!Target::parse(text).unwrap().subsystems[0].allows_any_host());
    let both = format!("{text}allow_any_host = true\n");
    assert!(wrong(&both).contains("exclude each other"));
}

#[test]
fn nonsense_is_named_with_its_line() {
    let text = "[[subsystems]]\nnqn = \"n\"\nqid_maximum = 3\n";
    let reason = wrong(text);
    assert!(reason.starts_with("line 3: ") && reason.contains("qid_maximum"), "{reason}");
    assert!(wrong("[[subsystems]]\n").contains("nqn"));
    assert!(wrong("subsystems = []\n").contains("at least one"));
    assert!(wrong("not toml").starts_with("line 1: "));
}

/// A key may stand in the place of any value, and a file may come from elsewhere.
#[test]
fn values_that_are_not_understood_are_not_shown() {
    let secret = "DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:";
    let host = |line: &str| format!("[[hosts]]\nnqn = \"n\"\n{line}\n");
    for text in [
        host(&format!("{secret:?} = \"dhchap_key\"")),
        host(&format!("{} = 1", &secret[10..])),
        host(&format!("dhchap_key = [{secret:?}]")),
        host(&format!("dhchap_key = {secret}")),
        host(&format!("dhchap_key: {secret:?}")),
        host(&format!("dhchap_key = {{ {secret:?} = 1 }}")),
        format!("[[{secret}]]\n"),
        format!("{secret:?} = 1\n"),
        format!("subsystems = {secret:?}\n"),
        format!("[[subsystems]]\nnqn = \"n\"\nallow_any_host = {secret:?}\n"),
        format!("[[subsystems]]\nnqn = \"n\"\n[[ports]]\naddress = {secret:?}\n"),
        format!("[[subsystems]]\nnqn = \"n\"\n[[ports]]\nservice = {secret:?}\n"),
        format!(
            "[[subsystems]]\nnqn = \"n\"\n[[ports]]\nana_groups = [{{ id = 1, state = {secret:?} \
             }}]\n"
        ),
        format!(
            "[[subsystems]]\nnqn = \"n\"\nnamespaces = [{{ backing = {{ null_blk = {{ size = \
             {secret:?} }} }} }}]\n"
        ),
        "[[subsystems]]\n\"\\u001b[2J\\u202e\" = 1\n".to_owned(),
    ] {
        let reason = wrong(&text);
        assert!(!reason.contains(&secret[10..26]), "{text}: {reason}");
        assert!(!reason.contains(['\u{1b}', '\u{202e}']), "{text}: {reason}");
    }
}

#[test]
fn contradictions_are_refused() {
    let one = "[[subsystems]]\nnqn = \"n\"\n";
    let cases = [
        (format!("{one}{one}"), "subsystem n: given twice"),
        (format!("{one}namespaces = [{{ nsid = 2 }}, {{}}]\n"), "namespace 2: given twice"),
        (format!("{one}namespaces = [{{ nsid = 0 }}]\n"), "starts at 1"),
        (format!("{one}[[ports]]\nsubsystems = [\"m\"]\n"), "no subsystem m"),
        (format!("{one}[[ports]]\nid = 2\n[[ports]]\n"), "port 2: given twice"),
        (format!("{one}[[ports]]\naddress = \"home\"\n"), "line 4"),
        (
            format!("{one}[[ports]]\nana_groups = [{{ id = 129, state = \"optimized\" }}]\n"),
            "1 to 128",
        ),
        (format!("{one}[[ports]]\nana_groups = [{{ id = 1, state = \"fine\" }}]\n"), "optimized"),
        ("[[subsystems]]\nnqn = \"a/b\"\n".into(), "cannot hold"),
        ("[[subsystems]]\nnqn = \"..\"\n".into(), "cannot hold"),
        ("[[subsystems]]\nnqn = \"a\\u001bb\"\n".into(), "cannot hold"),
        ("[[subsystems]]\nnqn = \"\"\n".into(), "1 to 223"),
        (format!("{one}hosts = [\"../x\"]\n"), "cannot hold"),
        (format!("[[hosts]]\nnqn = \"a/../b\"\n{one}"), "cannot hold"),
        (format!("[[subsystems]]\nnqn = \"{}\"\n", "n".repeat(224)), "223"),
    ];
    for (text, expected) in cases {
        let reason = wrong(&text);
        assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
    }
}

#[test]
fn names_are_those_that_linux_accepts() {
    for nqn in ["x", "testnqn_1", "nqn.2026-11.org.example:disk", &"n".repeat(223)] {
        Target::parse(&format!("[[subsystems]]\nnqn = \"{nqn}\"\n")).unwrap();
    }
}

#[test]
fn null_blk_takes_plain_attributes_only() {
    let with = |extra: &str| {
        format!(
            "[[subsystems]]\nnqn = \"n\"\n\
             namespaces = [{{ backing.null_blk.extra = {{ {extra} }} }}]\n"
        )
    };
    Target::parse(&with("hw_queue_depth = 64, zoned = false, badblocks = \"+1-5\"")).unwrap();
    for name in ["../../../../x", "/etc/passwd", "a/b", "..", "", "size\\u0000x"] {
        let reason = wrong(&with(&format!("\"{name}\" = \"y\"")));
        assert!(reason.contains("not the name of an attribute"), "{reason}");
    }
    assert!(wrong(&with("x = [1]")).contains("whole number"));
}

#[test]
fn names_from_the_command_line_stay_in_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (config, own) = (folder.path().join("config"), folder.path().join("own"));
    for path in ["nvmet/subsystems/s/namespaces/1", "nvmet/hosts/h", "nvmet/ports/1", "nullb"] {
        fs::create_dir_all(config.join(path)).unwrap();
    }
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("state"), "kept").unwrap();
    let root = TargetRoot { config, debug: folder.path().into(), own, exclusive: true };
    let up = "../../../outside";
    let refused = |result: crate::Result<()>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("cannot be the name") || error.contains("not the name"), "{error}");
    };
    for words in [
        &["subsystem", up, "state", "x"][..],
        &["host", up, "state", "x"],
        &["namespace", up, "1", "state", "x"],
        &["backing", up, "1", "state", "x"],
        &["subsystem", "s", "../../../../outside/state", "x"],
        &["host", "h", "/etc/x", "x"],
        &["port", "1", "..", "x"],
    ] {
        refused(root.set(words));
    }
    refused(root.fatal("../outside", None));
    refused(root.link(1, up));
    refused(root.unlink(1, up));
    refused(root.allow("s", "."));
    refused(root.allow("s", ""));
    refused(root.disallow("s", "../x"));
    assert_eq!(fs::read_to_string(outside.join("state")).unwrap(), "kept");
}

#[test]
fn wrong_sizes_are_refused() {
    let with = |backing: &str| {
        format!("[[subsystems]]\nnqn = \"n\"\nnamespaces = [{{ backing = {{ {backing} }} }}]\n")
    };
    let cases = [
        ("null_blk = { size = \"1\" }", "whole MiB"),
        ("null_blk = { size = \"lots\" }", "not a size"),
        ("null_blk = { size = \"1M\", block_size = 520 }", "520"),
        ("ram = { size = \"1000\" }", "4096"),
        ("ram = {}", "size"),
        ("tape = {}", "tape"),
    ];
    for (backing, expected) in cases {
        let reason = wrong(&with(backing));
        assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
    }
}

#[test]
fn zones_are_those_of_an_nvme_namespace() {
    let with = |size: u64, extra: &str| {
        format!(
            "[[subsystems]]\nnqn = \"n\"\nnamespaces = [{{ backing.null_blk = {{ size = \
             \"{size}MiB\", extra = {{ {extra} }} }} }}]\n"
        )
    };
    for (size, extra) in [
        (256, "zoned = true"),
        (64, "zoned = 1, zone_size = 4, zone_capacity = 3, zone_nr_conv = 0"),
        (64, "zoned = \"1\", zone_size = \"4\", zone_max_open = 2, zone_max_active = 15"),
        (64, "zoned = true, zone_size = 64"),
        (64, "zoned = false"),
    ] {
        Target::parse(&with(size, extra)).unwrap();
    }
    for (size, extra, expected) in [
        (64, "zoned = true", "zone_size 256: a power of two of MiB that divides the 64 MiB"),
        (63, "zoned = true, zone_size = 3", "zone_size 3: a power of two"),
        (66, "zoned = true, zone_size = 4", "divides the 66 MiB"),
        (64, "zoned = true, zone_size = 0", "zone_size 0: a power of two"),
        (64, "zone_size = 4", "zone_size: only with zoned = true"),
        (64, "zoned = 0, zone_max_open = 4", "zone_max_open: only with zoned = true"),
        (64, "zoned = 1, zone_size = 4, zone_capacity = 5", "at most zone_size, 4"),
        (64, "zoned = 1, zone_size = 4, zone_nr_conv = 1", "no conventional zones"),
        (64, "zoned = 1, zone_size = 4, zone_max_open = 16", "fewer than the 16 zones"),
        (64, "zoned = 1, zone_size = 4, zone_max_active = 17", "fewer than the 16 zones"),
        (64, "zoned = 1, zone_size = 4, zone_max_open = 3, zone_max_active = 2", "active, 2"),
    ] {
        let reason = wrong(&with(size, extra));
        assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
    }
}

#[test]
fn commands_pass_through_to_a_controller_of_another_subsystem() {
    let disk = "[[subsystems]]\nnqn = \"disk\"\n";
    let through =
        |to: &str| format!("[[subsystems]]\nnqn = \"p\"\npassthru.subsystem = \"{to}\"\n");
    let target = Target::parse(&format!("{disk}{}", through("disk"))).unwrap();
    assert!(target.passes_through("p") && !target.passes_through("disk"));
    assert!(target.subsystems[1].namespaces.is_empty());
    let cases = [
        (format!("{disk}{}", through("other")), "no subsystem other"),
        (through("p"), "p passes its commands on too"),
        (format!("{disk}{}namespaces = [{{ nsid = 3 }}]\n", through("disk")), "leave `namespaces`"),
        (format!("{disk}{}[[ports]]\nsubsystems = [\"p\"]\n", through("disk")), "no port has disk"),
        (format!("{disk}{}passthru.timeout = 3\n", through("disk")), "timeout"),
    ];
    for (text, expected) in cases {
        let reason = wrong(&text);
        assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
    }
}
