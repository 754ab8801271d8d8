//! The three formats: what libnvme's own descriptions say of each, and that all mean the same.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

mod damage;
mod secrecy;

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nvmf-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ini(text: &str) -> (Result<Document, String>, Vec<String>) {
    let mut warnings = Vec::new();
    (ini::parse(Path::new("a.conf"), text, &mut warnings), warnings)
}

/// The connections of a file of this text that is in the INI format.
fn connections(text: &str) -> Vec<Connection> {
    let file = ini(text).0.unwrap();
    Configuration { files: vec![file], warnings: Vec::new() }.connections().unwrap()
}

const MAIN: &str = "
# A complete configuration.
[Discovery Controller Defaults]
keep-alive-tmo = 30   # as nvme-cli's own sample has it
ctrl-loss-tmo  = 600

[I/O Controller Defaults]
ctrl-loss-tmo = 600

[Host]
hostsymname = lab #1
reconnect-delay = 7

[Discovery Controller]
nqn        = nqn.2014-08.org.example:cdc.main
controller = transport=rdma;traddr=192.168.1.10;trsvcid=4420

[Discovery Controller]
controller = transport=rdma; traddr=192.168.1.11 ;keep-alive-tmo=5;

[Subsystem]
nqn           = nqn.2024-01.com.example:data.vol2
ctrl-loss-tmo = 1800
kxchap-secret = DHHC-1:00:c2VjcmV0:
controller    = transport=rdma;traddr=192.168.1.21;trsvcid=4420
controller    = transport=rdma;traddr=192.168.1.22;host-iface=eth1;ctrl-loss-tmo=-1
controller    = transport=rdma;traddr=192.168.1.23;ctrl-loss-tmo=
";

#[test]
fn ini_is_read_with_all_that_applies() {
    let (file, warnings) = ini(MAIN);
    assert!(file.is_ok() && warnings.is_empty(), "{file:?} {warnings:?}");
    let all = connections(MAIN);
    assert_eq!(all.len(), 5);
    let parameter = |index: usize, name| all[index].parameters.get(name);
    assert_eq!(all[0].subsystem, "nqn.2014-08.org.example:cdc.main");
    assert_eq!(all[1].subsystem, rdma_host::wire::Nqn::DISCOVERY);
    assert_eq!(
        (parameter(0, "keep-alive-tmo"), parameter(1, "keep-alive-tmo")),
        (Some("30"), Some("5"))
    );
    assert_eq!(parameter(2, "keep-alive-tmo"), None, "the defaults of another kind");
    assert_eq!(parameter(4, "reconnect-delay"), Some("7"), "[Host] is for all");
    let losses: Vec<_> = (2..5).map(|index| parameter(index, "ctrl-loss-tmo")).collect();
    assert_eq!(losses, [Some("1800"), Some("-1"), None], "an empty value is the default");
    assert_eq!(all[3].address.host_iface.as_deref(), Some("eth1"));
    assert_eq!((all[0].line, all[4].line), (16, 27));
    assert!(!format!("{all:?}").contains("c2VjcmV0"), "secrets are not shown");
}

#[test]
fn ini_errors_name_place_key_and_remedy() {
    let endpoint = "[Subsystem]\nnqn = nqn.x\n";
    let cases = [
        ("tos = 1".to_owned(), "a.conf:1: tos stands before any section"),
        ("[Host]\nhostnqn = my host".to_owned(), "a.conf:2: hostnqn: this is not an NQN"),
        ("[Host]\nhostid = 0".to_owned(), "a.conf:2: hostid is a UUID"),
        ("[Host]\n[Host]".to_owned(), "a.conf:2: a second [Host]"),
        ("[Host".to_owned(), "write [NAME]"),
        ("[Host]\njunk".to_owned(), "a.conf:2: this line is neither"),
        ("[Host]\npersistent = force".to_owned(), "persistent does not belong here"),
        ("[Host]\nnqn = nqn.x".to_owned(), "nqn does not belong here"),
        ("[Subsystem]\ntos = 1".to_owned(), "a.conf:1: [Subsystem] lacks nqn"),
        (format!("{endpoint}tos = high"), "a.conf:3: tos takes a number"),
        (format!("{endpoint}nqn ="), "a.conf:3: nqn"),
        (format!("{endpoint}controller = traddr=1.2.3.4"), "lacks transport"),
        (format!("{endpoint}controller = transport=rdma"), "lacks traddr"),
        (format!("{endpoint}controller = rdma"), "a part of it is not key=value"),
        (
            format!("{endpoint}controller = transport=rdma;traddr=1;tradr=2"),
            "controller: unknown key;",
        ),
        (format!("{endpoint}controller = transport=rdma;traddr=1;traddr=2"), "given twice"),
        (format!("{endpoint}controller = transport=rdma;traddr=1;tls=1"), "a line of its own"),
        (format!("{endpoint}controller = transport=rdma;traddr=1;persistent=no"), "persistent"),
        (format!("{endpoint}controller = transport=rdma;traddr=;tos=1"), "traddr has no value"),
    ];
    for (text, expected) in cases {
        let error = ini(&text).0.unwrap_err();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn what_ini_does_not_know_is_reported_and_ignored() {
    let text = "[Daemon]\nanything = 1\n[Host]\nspeed = 9\nhostsymname = \"x\"\n\
                [I/O Controller Defaults]\n[I/O Controller Defaults]\n[Discovery Controller]\n";
    let (file, warnings) = ini(text);
    assert!(file.is_ok());
    let expected = ["a.conf:1:", "a.conf:4:", "a.conf:5:", "a.conf:7:", "a.conf:8:"];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
}

#[test]
fn drop_ins_have_their_own_hosts_and_defaults() {
    let folder = Folder::new("drop-ins");
    let main = folder.write("f.conf", MAIN);
    let one = "[Host]\nhostnqn = nqn.host:1\nhostid = 46ba5037-7ce5-41fa-9452-48477bf00080\n\
               [Discovery Controller Defaults]\nkeep-alive-tmo = 45\n\
               [Discovery Controller]\ncontroller = transport=rdma;traddr=10.0.0.5\n";
    folder.write("f.conf.d/one.conf", one);
    folder.write(
        "f.conf.d/two.conf",
        "[Discovery Controller]\ncontroller = transport=rdma;traddr=10.0.0.6\n",
    );
    folder.write("f.conf.d/ignored.txt", "junk");
    let all = Configuration::load(&main).unwrap().connections().unwrap();
    assert_eq!(all.len(), 7);
    assert_eq!(all[5].hostnqn.as_deref(), Some("nqn.host:1"));
    assert_eq!(all[5].parameters.get("keep-alive-tmo"), Some("45"), "its own");
    assert_eq!(all[5].parameters.get("ctrl-loss-tmo"), Some("600"), "that of the main file");
    assert_eq!(all[5].parameters.get("reconnect-delay"), None, "another host's");
    assert_eq!(all[6].parameters.get("keep-alive-tmo"), Some("30"), "not its neighbour's");

    let refused = |text: &str, expected: &str| {
        folder.write("f.conf.d/three.conf", text);
        let error = Configuration::load(&main).unwrap().connections().unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    };
    refused("[Host]\ntos = 1\n", "lacks hostnqn");
    refused("[Host]\nhostnqn = nqn.host:1\n", "is used in");
    refused(
        "[Host]\nhostnqn = nqn.host:2\nhostid = 46ba5037-7ce5-41fa-9452-48477bf00080\n",
        "is that of another host",
    );
}

const JSON_TEXT: &str = r#"{
  "owner": "nvme-cli",
  "hosts": [
    {
      "hostnqn": "nqn.host:1",
      "hostid": "46ba5037-7ce5-41fa-9452-48477bf00080",
      "dhchap_key": "DHHC-1:00:aG9zdA==:",
      "persistent_discovery_ctrl": true,
      "subsystems": [
        {
          "nqn": "nqn.disk:1",
          "ports": [
            { "transport": "rdma", "traddr": "10.0.0.1", "trsvcid": "4420", "queue_size": 64,
              "disable_sqflow": true },
            { "transport": "rdma", "traddr": "10.0.0.2", "trsvcid": 4420, "queue_size": 64,
              "disable_sqflow": true },
            { "transport": "rdma", "traddr": "10.0.0.3", "dhchap_key": "DHHC-1:00:cG9ydA==:",
              "speed": "high" }
          ]
        },
        {
          "nqn": "nqn.2014-08.org.nvmexpress.discovery",
          "ports": [
            { "transport": "rdma", "traddr": "10.0.0.4", "persistent": true, "discovery": true }
          ]
        }
      ]
    }
  ]
}"#;

fn json(text: &str) -> Result<Configuration, String> {
    let mut configuration = Configuration::default();
    json::parse(Path::new("c.json"), text, &mut configuration)?;
    Ok(configuration)
}

#[test]
fn json_is_read_with_all_that_applies() {
    let configuration = json(JSON_TEXT).unwrap();
    let warnings = &configuration.warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|text| text == "c.json:18: unknown key of a port is ignored"));
    assert!(warnings.iter().any(|text| text.starts_with("c.json:8: ")));
    let all = configuration.connections().unwrap();
    let secrets: Vec<_> = all.iter().map(|one| one.parameters.get("kxchap-secret")).collect();
    let host = Some("DHHC-1:00:aG9zdA==:");
    assert_eq!(secrets, [host, host, Some("DHHC-1:00:cG9ydA==:"), host]);
    assert_eq!(all[1].address.trsvcid.as_deref(), Some("4420"), "a number is a text too");
    assert_eq!(all[0].parameters.get("queue-size"), Some("64"));
    assert_eq!(all[0].parameters.get("disable-sqflow"), Some("true"));
    assert_eq!(all[3].kind, EndpointKind::Discovery);
    assert_eq!(all[3].parameters.get("persistent"), Some("force"));
    assert_eq!((all[0].line, all[3].line), (13, 24));
    // The older form is the list alone.
    let start = JSON_TEXT.find("[\n").unwrap();
    let list = &JSON_TEXT[start..JSON_TEXT.rfind(']').unwrap() + 1];
    assert_eq!(json(list).unwrap().connections().unwrap().len(), 4);
}

#[test]
fn json_errors_name_place_and_key() {
    let host = |inside: &str| format!("{{\n\"hosts\": [\n{{ {inside} }}\n] }}");
    let port = |inside: &str| {
        host(&format!("\"subsystems\": [ {{ \"nqn\": \"nqn.x\", \"ports\": [\n{inside} ] }} ]"))
    };
    let cases = [
        ("{".to_owned(), "c.json:1: this is no JSON"),
        ("{\"host\": 1}".to_owned(), "c.json:1: \"hosts\" is missing"),
        ("{\"hosts\": 1}".to_owned(), "\"hosts\" is not a list"),
        ("7".to_owned(), "is not an object"),
        (host("\"hostnqn\": \"my host\""), "c.json:3: hostnqn"),
        (host("\"hostid\": {}"), "c.json:3: hostid is not a text"),
        (host("\"subsystems\": [ { \"nqn\": \"x y\" } ]"), "c.json:3: nqn: this is not an NQN"),
        (port("{ \"transport\": \"rdma\" }"), "c.json:4: the port lacks \"traddr\""),
        (
            port("{ \"traddr\": \"1\", \"transport\": \"rdma\", \"tos\": \"x\" }"),
            "c.json:4: tos takes a number",
        ),
        (port("[]"), "c.json:4: a port is not an object"),
    ];
    for (text, expected) in cases {
        let error = json(&text).unwrap_err();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

fn options(text: &str) -> Result<Configuration, String> {
    let mut configuration = Configuration::default();
    options::parse(Path::new("discovery.conf"), text, &mut configuration)?;
    Ok(configuration)
}

#[test]
fn option_lists_are_read_in_every_spelling() {
    let text = "# comment\n\n\
        --transport=rdma --traddr=10.0.0.1 --trsvcid=4420 --keep-alive-tmo=9\n\
        -t rdma -a 10.0.0.1 -s 4420 -k 9\n\
        --transport rdma --traddr 10.0.0.1 --trsvcid 4420 --keep-alive-tmo 9\n\
        -trdma -a=10.0.0.1 -s4420 -k9\n\
        --keep-alive-tmo=9\n";
    let configuration = options(text).unwrap();
    assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
    let all = configuration.connections().unwrap();
    assert_eq!(all.len(), 4, "a line without a controller is none");
    for one in &all {
        assert_eq!(one.address, all[0].address);
        assert_eq!(one.parameters, all[0].parameters);
    }
    assert_eq!(all[0].address.to_string(), "rdma 10.0.0.1 4420");
    assert_eq!(all[0].parameters.get("keep-alive-tmo"), Some("9"));
}

#[test]
fn option_lists_have_flags_and_hosts() {
    let text = "-t rdma -a ::1 -p -g -D -q nqn.host:1 -n nqn.disc --persistent=force --quiet -d\n\
        -t rdma -a ::2 --hostnqn=nqn.host:1 --speed high --fast\n";
    let configuration = options(text).unwrap();
    assert_eq!(configuration.files.len(), 1, "one host");
    let all = configuration.connections().unwrap();
    assert_eq!(all[0].parameters.get("persistent"), Some("force"));
    assert_eq!(all[0].parameters.get("duplicate-connect"), Some("true"));
    assert_eq!(all[0].parameters.get("disable-sqflow"), Some("true"));
    assert_eq!(
        (all[0].subsystem.as_str(), all[1].hostnqn.as_deref()),
        ("nqn.disc", Some("nqn.host:1"))
    );
    let warnings = &configuration.warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("discovery.conf:2: an option that is not known"));

    for (text, expected) in [
        ("-t rdma", "discovery.conf:1: --traddr is missing"),
        ("\n-a 1.2.3.4", "discovery.conf:2: --transport is missing"),
        ("-t rdma -a 1.2.3.4 -k soon", "keep-alive-tmo takes a number"),
        ("-t rdma -a", "--traddr lacks its value"),
        ("-t rdma -a 1 -q ho\u{7f}st", "hostnqn: this is not an NQN"),
    ] {
        let error = options(text).unwrap_err();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn older_formats_become_ini_and_mean_the_same() {
    let folder = Folder::new("convert");
    let old = folder.write("config.json", JSON_TEXT);
    let list =
        folder.write("discovery.conf", "-t rdma -a 10.0.0.9\n-t rdma -a 10.0.0.8 -q nqn.host:2\n");
    let before = Configuration::load_from(Path::new("/nonexistent"), &old, &list).unwrap();
    let main = folder.0.join("nvme-fabrics.conf");
    let outputs = before.outputs(&main).unwrap();
    install(&outputs, &main, false).unwrap();
    assert!(install(&outputs, &main, false).unwrap_err().to_string().contains("--force"));
    install(&outputs, &main, true).unwrap();

    let after = Configuration::load_from(&main, &old, &list).unwrap();
    assert!(after.warnings.is_empty(), "{:?}", after.warnings);
    let key = |one: Connection| Connection { path: PathBuf::new(), line: 0, ..one };
    let sorted = |configuration: &Configuration| {
        let mut all: Vec<_> = configuration.connections().unwrap().into_iter().map(key).collect();
        all.sort_by_key(|one| one.address.traddr.clone());
        all
    };
    assert_eq!(sorted(&before), sorted(&after));
    let modes = outputs.iter().map(|output| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(&output.path).unwrap().permissions().mode() & 0o777
    });
    assert_eq!(modes.collect::<Vec<_>>(), [0o644, 0o600, 0o644], "secrets are for their owner");
    let left = fs::read_dir(drop_in_folder(&main)).unwrap().count();
    assert_eq!(left, 2, "nothing temporary is left");
}

#[test]
fn ini_written_is_ini_read() {
    let file = ini(MAIN).0.unwrap();
    let configuration = Configuration { files: vec![file], warnings: Vec::new() };
    let outputs = configuration.outputs(Path::new("b.conf")).unwrap();
    assert_eq!(outputs.len(), 1);
    let again = connections(&outputs[0].text);
    assert_eq!(again.len(), 5);
    assert!(outputs[0].text.ends_with("ctrl-loss-tmo=\n"), "{}", outputs[0].text);
}

#[test]
fn values_that_ini_cannot_hold_are_not_written() {
    for secret in ["a #b", " x", "x\t#"] {
        let text = format!(
            "{{\"hosts\": [{{\"subsystems\": [{{\"nqn\": \"nqn.x\", \"ports\": \
             [{{\"transport\": \"rdma\", \"traddr\": \"h\", \"tls_key\": {secret:?}}}]}}]}}]}}"
        );
        let outputs = json(&text).map(|read| read.outputs(Path::new("b.conf")));
        let error = match outputs {
            Ok(outputs) => outputs.unwrap_err().to_string(),
            Err(error) => error,
        };
        assert!(error.contains("can't be written") || error.contains("tls-key takes"), "{error}");
    }
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = Folder::new("none");
    let refused = |path: PathBuf| Configuration::load(&path).unwrap_err().to_string();
    assert!(refused(folder.0.join("x.conf")).contains("no such file"));
    assert!(refused(folder.0.join("x.json")).contains("no such file"));
    assert!(refused(folder.0.clone()).contains("no file"));
    let empty =
        Configuration::load_from(&folder.0.join("a"), &folder.0.join("b"), &folder.0.join("c"));
    assert!(empty.unwrap().files.is_empty(), "nothing there is nothing configured");
}

proptest! {
    /// Lines of every kind, most of them wrong: no text makes a reader panic, and what is read can
    /// be written and read again.
    #[test]
    fn any_text_is_survived(lines in vec(line(), 0..30)) {
        let text = lines.join("\n");
        let _ = json(&text);
        let _ = options(&text);
        let (Ok(file), _) = ini(&text) else { return Ok(()) };
        let configuration = Configuration { files: vec![file], warnings: Vec::new() };
        let wanted = configuration.connections().expect("one file has one host");
        let outputs = configuration.outputs(Path::new("b.conf")).expect("it was INI before");
        let again: usize = outputs.iter().map(|output| connections(&output.text).len()).sum();
        prop_assert_eq!(again, wanted.len());
    }
}

fn line() -> impl Strategy<Value = String> {
    let sections = select(vec![
        "[Host]",
        "[Subsystem]\nnqn = nqn.x:y",
        "[Discovery Controller]",
        "[I/O Controller Defaults]",
        "[Other]",
    ]);
    let keys =
        select(vec!["tos", "tls", "persistent", "hostnqn", "hostid", "kxchap-secret", "nqn"]);
    let values = select(vec!["1", "-1", "true", "force", "nqn.a:b", "", "a b #c", "0x7f", "\"q\""]);
    let routes = select(vec![
        "transport=rdma;traddr=10.0.0.1",
        "transport=rdma;traddr=::1;tos=3;;",
        " transport = tcp ; traddr = h ; queue-size = ",
        "traddr=1",
    ]);
    prop_oneof![
        2 => sections.prop_map(str::to_owned),
        4 => (keys, values).prop_map(|(key, value)| format!("{key} = {value}")),
        4 => routes.prop_map(|route| format!("controller = {route}")),
        1 => "[-a-z={}\\[\\]\": #;]{0,40}",
    ]
}
