//! Programs from Debian's packages, unchanged. Those that are not installed are skipped.

use std::process::Command;

use crate::support::{Bed, expect_success, text};

/// Shell function `pair SERVER CLIENT`: starts the server, and the client until it finds the
/// server.
const PAIR: &str = r#"
pair() {
    eval "$1" >/run/server 2>&1 &
    for try in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.3
        if eval "$2" >/run/client 2>&1; then
            wait $! || { echo "server: $?"; cat /run/server; exit 1; }
            cat /run/client
            return
        fi
    done
    echo "client"; cat /run/client; echo "server"; cat /run/server
    exit 1
}
"#;

/// Number of times to start a program of perftest's.
const PERFTEST_TRIES: usize = 10;

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn rping() {
    let Some(seen) =
        run("rping", "rdmacm-utils", "pair 'rping -s -a $A -C 10' 'rping -c -a $A -C 10 -v'")
    else {
        return;
    };
    assert_eq!(seen.matches("ping data: rdma-ping-").count(), 10, "{seen}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn ibv_rc_pingpong() {
    for events in ["", "-e"] {
        let server = format!("ibv_rc_pingpong -d rxe0 -g 1 -n 200 {events}");
        let script = format!("pair '{server}' '{server} $A'");
        let Some(seen) = run("ibv_rc_pingpong", "ibverbs-utils", &script) else { return };
        let line = seen.lines().find(|line| line.contains("usec/iter"));
        let line = line.unwrap_or_else(|| panic!("{seen}"));
        println!("ibv_rc_pingpong {events}: {line}");
        assert!(line.starts_with("200 iters in "), "{seen}");
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn perftest_reports_numbers() {
    // The column with the mean: of bandwidth in MB/s, of latency in µs. With events (-e),
    // ib_send_lat sometimes waits without end for one on rxe.
    let programs = [
        ("ib_send_bw", "-n 200 -s 4096 -e", 3),
        ("ib_write_bw", "-n 200 -s 65536", 3),
        ("ib_read_lat", "-n 200 -s 8", 5),
        ("ib_send_lat", "-n 200 -s 8", 5),
    ];
    for (program, options, column) in programs {
        let server = format!("{program} -d rxe0 -x 1 -F {options}");
        let script = format!("pair '{server}' '{server} $A'");
        // On a loaded machine the programs refuse to use the clock that they have measured.
        let is_measured = |seen: &String| !seen.contains("Correlation coefficient");
        let mut tries = (0..PERFTEST_TRIES).map(|_| run(program, "perftest", &script));
        let Some(seen) = tries.find(|seen| seen.as_ref().is_none_or(is_measured)) else {
            println!("SKIPPED: {program} cannot measure its clock beside this machine's load");
            continue;
        };
        let Some(seen) = seen else { return };
        let mut lines = seen.lines().skip_while(|line| !line.contains("#bytes"));
        let line = lines.nth(1).unwrap_or_else(|| panic!("{seen}"));
        println!("{program}: {line}");
        let number: f64 = line.split_whitespace().nth(column).unwrap().parse().unwrap();
        assert!(number.is_finite() && number > 0.5 && number < 1e6, "{seen}");
        assert!(!seen.contains("Conflicting CPU frequency"), "{seen}");
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn fi_pingpong() {
    let script = "pair 'fi_pingpong -p verbs -e msg -I 50 -S 64' \
                       'fi_pingpong -p verbs -e msg -I 50 -S 64 $A'";
    let Some(seen) = run("fi_pingpong", "libfabric-bin", script) else { return };
    assert!(seen.lines().any(|line| line.trim_start().starts_with("64")), "{seen}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn pyverbs() {
    let found = Command::new("/usr/bin/python3").args(["-c", "import pyverbs"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED: pyverbs is not installed (python3-pyverbs)");
    }
    let script = r#"/usr/bin/python3 - <<'END'
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import *
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

context = Context(name='rxe0')
assert context.query_port(1).state == IBV_PORT_ACTIVE
domain, queue = PD(context), CQ(context, 16)
memory = MR(domain, 4096, IBV_ACCESS_LOCAL_WRITE)

def attributes():
    attr = QPAttr(port_num=1)
    attr.path_mtu, attr.dest_qp_num, attr.min_rnr_timer = IBV_MTU_1024, pair.qp_num, 12
    attr.timeout, attr.retry_cnt, attr.rnr_retry = 14, 6, 6
    attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
    route = GlobalRoute(dgid=context.query_gid(1, 1), sgid_index=1)
    attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
    return attr

cap = QPCap(max_send_wr=4, max_recv_wr=4)
init = QPInitAttr(qp_type=IBV_QPT_RC, scq=queue, rcq=queue, cap=cap)
pair = QP(domain, init, QPAttr(port_num=1))
pair.to_rts(attributes())
memory.write(b'to itself', 9)
pair.post_recv(RecvWR(num_sge=1, sg=[SGE(memory.buf + 2048, 9, memory.lkey)]))
pair.post_send(SendWR(num_sge=1, sg=[SGE(memory.buf, 9, memory.lkey)], opcode=IBV_WR_SEND))
done = []
while len(done) < 2:
    done += queue.poll()[1]
assert all(entry.status == IBV_WC_SUCCESS for entry in done), done
print(memory.read(9, 2048).decode())
END"#;
    let output = Bed::new().shell(&["--timeout", "60"], script);
    expect_success(&output);
    assert_eq!(text(&output.stdout), "to itself\n");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn scripts_find_modprobe() {
    let script = "modprobe rdma_rxe && modprobe -n -q nvme-rdma && ! modprobe -q mlx5_ib
                  grep -c '^cpu MHz' /proc/cpuinfo; command -v modprobe";
    let output = Bed::new().shell(&[], script);
    assert_eq!(
        text(&output.stdout),
        "1\n/run/soft-roce/bin/modprobe\n",
        "{}",
        text(&output.stderr)
    );
}

/// Output of a script that uses a program of a package, or nothing when it is not installed.
fn run(program: &str, package: &str, script: &str) -> Option<String> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: {program} is not installed ({package})");
        return None;
    }
    let script = format!("A=$SOFT_ROCE_ADDRESS\n{PAIR}\n{script}");
    let output = Bed::new().shell(&["--timeout", "120"], &script);
    let seen = text(&output.stdout);
    assert!(
        output.status.success(),
        "{program}: {}\n{seen}\n{}",
        output.status,
        text(&output.stderr)
    );
    Some(seen)
}
