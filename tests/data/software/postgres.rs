//! PostgreSQL: its data in a volume, seen by one container after another, and whole after one was killed.

use crate::common::{Place, Who};

/// What every container of it is run with. It listens at a socket alone.
const OPTIONS: &str = "--network none -v rows:/var/lib/postgresql -e PGDATA=/var/lib/postgresql/data -e PGHOST=/tmp \
    -e PGUSER=postgres -e PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin";
const SERVER: &str = "exec postgres -c jit=off -c listen_addresses= -k /tmp";
const READY: &str =
    "for i in $(seq 300); do lamel exec db pg_isready -q && break; sleep 0.1; done; lamel exec db pg_isready -q";
/// What a transaction of pgbench changes in each of its tables adds up to the same.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
    (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history), (select count(*) from pgbench_accounts)";

pub(super) fn keeps_its_rows_in_a_volume(place: &Place, who: Who) {
    // It refuses to be run by root. Who has one id has it inside, too, and needs a name for it.
    let user = if who == Who::Alone {
        place.run("printf 'root:x:0:0:root:/root:/bin/sh\npostgres:x:47110:47110::/tmp:/bin/sh\n' > passwd");
        "--userns keep-id -v $PWD/passwd:/etc/passwd:ro"
    } else {
        "-u postgres"
    };
    let start = |script: &str| {
        place.run(&format!(
            "lamel run -d --name db --stop-signal INT {OPTIONS} {user} debian:1 sh -ec '{script}' > /dev/null
             {READY} || {{ lamel logs db; false; }}"
        ));
    };
    let sums = || place.run(&format!("lamel exec db psql -qAt bench -c '{SUMS}'"));
    start(&format!("initdb -A trust -U postgres > /tmp/initdb.log; {SERVER}"));
    place.run(
        "lamel exec db sh -ec 'createdb bench; pgbench -q -i bench; pgbench -T 2 -c 4 -j 2 bench' > bench.log 2>&1",
    );
    let first = sums();
    assert!(first.ends_with("|100000"), "{who:?}: {first}");
    place.run("lamel stop db > /dev/null");
    assert_eq!(
        place.run("lamel inspect -f '{{.State.ExitCode}}' db"),
        "0",
        "{who:?}: {}",
        place.run("lamel logs db 2>&1")
    );
    // Of all that, its layer has what was written outside of the volume.
    assert_eq!(place.run("lamel diff db"), "C /tmp\nA /tmp/initdb.log", "{who:?}");
    place.run("lamel rm db > /dev/null");
    // A second container sees what the first one left.
    start(SERVER);
    assert_eq!(sums(), first, "{who:?}");
    // It is killed amidst the work, and a third one finds all that was promised and nothing by half.
    place.run(&format!(
        "lamel exec db pgbench -n -T 100 -c 4 -j 2 bench > killed.log 2>&1 &
         for i in $(seq 300); do
             [ \"$(lamel exec db psql -qAt bench -c '{SUMS}')\" = '{first}' ] || break
             sleep 0.1
         done
         lamel kill db > /dev/null; wait $! || true"
    ));
    assert_eq!(place.run("lamel wait db; lamel rm db"), "137\ndb", "{who:?}");
    start(SERVER);
    let last = sums();
    let mut numbers = last.split('|');
    let delta = numbers.next().unwrap();
    assert!(numbers.by_ref().take(3).all(|number| number == delta), "{who:?}: {last}");
    assert!(last.ends_with("|100000") && last != first, "{who:?}: {first} {last}");
    place.run("lamel stop db > /dev/null; lamel rm -v db > /dev/null; lamel volume rm rows > /dev/null");
}
