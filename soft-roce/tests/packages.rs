//! Packages with the kernel source for `soft-roce build`, by the package lists of several systems.
//!
//! The programs of apt, dpkg and make are scripts here, the first on the search path; the package
//! lists are as those systems have them. The build ends where it would configure the kernel.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Ubuntu 24.04 with its updates.
const NOBLE: &str = "linux-source-6.8.0 6.8.0-142.142 348274600\n";

/// Ubuntu 22.04 with its updates, which hold the kernels of later releases.
const JAMMY: &str = "linux-source-5.15.0 5.15.0-191.201 149452400\n\
                     linux-source-5.19.0 5.19.0-50.50 150000000\n\
                     linux-source-6.2.0 6.2.0-39.40~22.04.1 160000000\n\
                     linux-source-6.5.0 6.5.0-45.45~22.04.1 328525700\n";

/// Debian 12 without its security suite.
const BOOKWORM: &str = "linux-source-6.1 6.1.192-3 139330232\n";

const TRIXIE: &str = "linux-source-6.12 6.12.117-1 153476148\n";

const DEBIAN: &str = "Debian|Debian|http://mirror.test/debian\n";

const UBUNTU: &str = "Ubuntu|Ubuntu|http://mirror.test/ubuntu\n";

/// Stands for apt-get and apt-cache: the state that is asked is the one named in the options, and
/// is a file with lines of name, version and size. A file `NAME.error` makes its update fail. As
/// the real one, it tells nothing of its sources before it has a list.
const APT: &str = r#"
for word; do
  case $word in
    -oDir::State::lists=*/apt/*/lists) state=${word%/lists} state=${state##*/} ;;
    indextargets | update | download | search | show | install) verb=$word ;;
  esac
  last=$word
done
list=$SYSTEM/${state:-host}
case $verb in
  indextargets) [ ! -s "$list" ] || cat "$SYSTEM/targets" ;;
  update) [ ! -e "$list.error" ] || { cat "$list.error" >&2; exit 100; } ;;
  search) [ ! -e "$list" ] || sed 's/ .*/ - Linux kernel source/' "$list" ;;
  show) sed -n "s/^$last \(.*\) \(.*\)/Version: \1\nSize: \2/p" "$list" ;;
  download) [ ! -e "$SYSTEM/gone" ] || ! grep -qxF "$last" "$SYSTEM/gone" ||
              { echo 'E: Failed to fetch http://mirror.test/x.deb  404  Not Found' >&2; exit 100; }
            cp "$SYSTEM/${last%%=*}.deb" . ;;
esac
"#;

/// A machine whose package lists are made up.
struct System {
    folder: TempDir,
    /// Value of SOFT_ROCE_DEBIAN_MIRROR.
    mirror: &'static str,
}

impl System {
    /// `targets` are what apt tells of its sources, `host` its package lists.
    fn new(targets: &str, host: &str) -> Self {
        let system = Self { folder: tempfile::tempdir().unwrap(), mirror: "" };
        fs::create_dir(system.path("bin")).unwrap();
        system.program("apt-get", APT);
        system.program("apt-cache", APT);
        system.program("dpkg-query", "exit 1");
        system.program("dpkg-deb", r#"tar -xf "$2" -C "$3""#);
        system.program("make", "echo 'configuring is not for this test' >&2; exit 1");
        system.program("bzip2", "exit 1");
        system.list("targets", targets);
        system.list("host", host);
        system
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn list(&self, name: &str, lines: &str) {
        fs::write(self.path(name), lines).unwrap();
    }

    /// Makes a package that holds a source tree, its tarball at that path.
    fn package(&self, name: &str, tarball: &str) {
        let files = self.path(name);
        let tree = files.join("tree").join(name);
        let tarball = files.join("files").join(tarball);
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(tarball.parent().unwrap()).unwrap();
        fs::write(tree.join("Makefile"), format!("# {name}\n")).unwrap();
        tar(&tarball, &files.join("tree"), name);
        tar(&self.path(&format!("{name}.deb")), &files.join("files"), "usr");
    }

    /// Runs `soft-roce build` and returns what it says, or nothing where it cannot be tried.
    fn build(&self) -> Option<String> {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let done = Command::new(env!("CARGO_BIN_EXE_soft-roce"))
            .args(["build", "--kernel", "6.12"])
            .env_remove("SOFT_ROCE_KERNEL_SOURCE")
            .env("SOFT_ROCE_DEBIAN_MIRROR", self.mirror)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("SYSTEM", self.folder.path())
            .env("PATH", path)
            .output()
            .unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{said}");
        if said.contains("missing: ") {
            println!("SKIPPED: the packages that build a kernel are not installed: {said}");
            return None;
        }
        Some(said)
    }

    /// The first line of the unpacked source.
    fn unpacked(&self) -> String {
        let makefile = self.path("cache/soft-roce/build-6.12/tree/Makefile");
        fs::read_to_string(makefile).unwrap_or_default().trim_end().to_owned()
    }
}

fn tar(file: &Path, folder: &Path, name: &str) {
    let mut tar = Command::new("tar");
    let done = tar.arg("-cf").arg(file).arg("-C").arg(folder).arg(name).status();
    assert!(done.unwrap().success());
}

#[test]
fn on_ubuntu_the_nearest_release_replaces_the_series() {
    for (list, release) in [(NOBLE, "6.8"), (JAMMY, "6.5")] {
        let system = System::new(UBUNTU, list);
        let name = format!("linux-source-{release}.0");
        system.package(&name, &format!("usr/src/{name}/{name}.tar.bz2"));
        let Some(said) = system.build() else { return };
        let replaced = format!("; {release} ({name}) replaces it, ");
        assert!(said.contains("no source of kernel 6.12: "), "{said}");
        assert!(said.contains("SOFT_ROCE_DEBIAN_MIRROR") && said.contains(&replaced), "{said}");
        assert_eq!(system.unpacked(), format!("# {name}"), "{said}");
    }
}

#[test]
fn debians_own_suites_come_first() {
    let system = System::new(DEBIAN, &format!("{BOOKWORM}{TRIXIE}"));
    system.package("linux-source-6.12", "usr/src/linux-source-6.12.tar.xz");
    let Some(said) = system.build() else { return };
    assert!(said.contains("downloading linux-source-6.12 6.12.117-1 (153 MB)"), "{said}");
    assert!(!said.contains("reading the package list"), "{said}");
    assert_eq!(system.unpacked(), "# linux-source-6.12", "{said}");
}

#[test]
fn a_later_suite_of_the_mirror_has_the_series() {
    let system = System::new(DEBIAN, BOOKWORM);
    system.list("trixie", TRIXIE);
    system.package("linux-source-6.12", "usr/src/linux-source-6.12.tar.xz");
    let Some(said) = system.build() else { return };
    assert!(said.contains("reading the package list of trixie") && !said.contains("replaces"));
    assert_eq!(system.unpacked(), "# linux-source-6.12", "{said}");
}

#[test]
fn a_suite_without_a_signature_that_can_be_checked_is_not_used() {
    let system = System::new(DEBIAN, BOOKWORM);
    system.list("trixie.error", "E: The repository 'http://m.test trixie' is not signed.\n");
    system.package("linux-source-6.1", "usr/src/linux-source-6.1.tar.xz");
    let Some(said) = system.build() else { return };
    assert!(said.contains("install or update debian-archive-keyring; 6.1 "), "{said}");
    assert_eq!(system.unpacked(), "# linux-source-6.1", "{said}");
}

#[test]
fn a_mirror_that_is_named_is_used() {
    let mut system = System::new(UBUNTU, NOBLE);
    system.list("trixie", TRIXIE);
    system.package("linux-source-6.12", "usr/src/linux-source-6.12.tar.xz");
    system.mirror = "http://mirror.test/debian";
    let Some(said) = system.build() else { return };
    assert_eq!(system.unpacked(), "# linux-source-6.12", "{said}");
}

#[test]
fn a_named_mirror_cannot_turn_off_signatures() {
    let mut system = System::new(UBUNTU, NOBLE);
    system.mirror = "[trusted=yes] http://mirror.test/debian";
    let Some(said) = system.build() else { return };
    assert!(said.lines().last().unwrap().contains("SOFT_ROCE_DEBIAN_MIRROR: "), "{said}");
}

#[test]
fn an_old_list_is_read_again() {
    let system = System::new(DEBIAN, "linux-source-6.12 6.12.9-1 153000000\n");
    system.list("machine", TRIXIE);
    system.list("gone", "linux-source-6.12=6.12.9-1\n");
    system.package("linux-source-6.12", "usr/src/linux-source-6.12.tar.xz");
    let Some(said) = system.build() else { return };
    assert!(said.contains("downloading linux-source-6.12 6.12.117-1"), "{said}");
    assert_eq!(system.unpacked(), "# linux-source-6.12", "{said}");
}

#[test]
fn a_machine_without_lists_reads_them() {
    let system = System::new(UBUNTU, "");
    system.list("machine", NOBLE);
    system.list("machine.error", "E: The repository of others has no Release file.\n");
    system.package("linux-source-6.8.0", "usr/src/linux-source-6.8.0/linux-source-6.8.0.tar.bz2");
    let Some(said) = system.build() else { return };
    assert_eq!(system.unpacked(), "# linux-source-6.8.0", "{said}");
}

#[test]
fn a_fresh_machine_of_debian_learns_its_mirror() {
    let system = System::new(DEBIAN, "");
    system.list("machine", BOOKWORM);
    system.list("trixie", TRIXIE);
    system.package("linux-source-6.12", "usr/src/linux-source-6.12.tar.xz");
    let Some(said) = system.build() else { return };
    assert_eq!(system.unpacked(), "# linux-source-6.12", "{said}");
}

#[test]
fn a_download_without_a_network_fails_with_its_cause() {
    let system = System::new(UBUNTU, NOBLE);
    system.list("gone", "linux-source-6.8.0=6.8.0-142.142\n");
    system.list("machine.error", "E: Temporary failure resolving 'mirror.test'\n");
    let Some(said) = system.build() else { return };
    let last = said.lines().last().unwrap();
    assert!(last.contains("cannot download linux-source-6.8.0 6.8.0-142.142: "), "{said}");
    assert!(last.contains("Failed to fetch") && last.contains("install that package"), "{said}");
}

#[test]
fn a_machine_without_a_network_says_so() {
    let system = System::new(UBUNTU, "");
    system.list("machine.error", "E: Temporary failure resolving 'mirror.test'\n");
    let Some(said) = system.build() else { return };
    let last = said.lines().last().unwrap();
    assert!(last.contains("no package with the 6.12 kernel source"), "{said}");
    assert!(last.contains("Temporary failure") && last.contains("--source"), "{said}");
}

#[test]
fn a_disk_without_room_is_told_before_the_download() {
    let system = System::new(DEBIAN, "linux-source-6.12 6.12.117-1 999999999999999\n");
    let Some(said) = system.build() else { return };
    let last = said.lines().last().unwrap();
    assert!(last.contains("MB free") && last.contains("XDG_CACHE_HOME"), "{said}");
    assert!(!said.contains("downloading"), "{said}");
}
