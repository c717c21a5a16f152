//! apt-get: what it installs is what the container changed, and what an image made of it has.

use crate::common::{Place, Who};

/// Two packages, one of which needs the other and makes a group, and the repository that they lie in.
const REPOSITORY: &str = r#"
mkdir -p repository greet/DEBIAN greet/usr/bin greeting/DEBIAN greeting/usr/share/greeting
control() { printf "Package: $1\nVersion: $2\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: test\n"; }
{ control greet 1.2; echo 'Depends: greeting (>= 1)'; } > greet/DEBIAN/control
control greeting 1.0 > greeting/DEBIAN/control
printf '#!/bin/sh\ncat /usr/share/greeting/text\n' > greet/usr/bin/greet
echo hello, world > greeting/usr/share/greeting/text
cat > greet/DEBIAN/postinst << 'end'
#!/bin/sh
set -e
groupadd --system greeters
install -d -m 2750 -g greeters /var/lib/greet
end
chmod 755 greet/usr/bin/greet greet/DEBIAN/postinst
for package in greet greeting; do dpkg-deb --root-owner-group -b $package repository > /dev/null; done
cd repository
for file in *.deb; do
    dpkg-deb -f $file
    printf "Filename: ./$file\nSize: $(stat -c %s $file)\nSHA256: $(sha256sum < $file | cut -d' ' -f1)\n\n"
done > Packages
"#;

/// The repository on an HTTP server of the host's, which the container reaches as it can.
const OVER_HTTP: &str = r#"
ip link set lo up 2> /dev/null || true
: > http.log
python3 -u -m http.server --directory repository --bind $1 0 >> http.log 2>&1 & trap "kill $!" EXIT
for i in $(seq 100); do port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' http.log); [ -z "$port" ] || break; sleep 0.1; done
echo "deb [trusted=yes] http://repository:$port ./" > http.list
lamel run --rm --network $2 --add-host repository:$3 -v $PWD/http.list:/etc/apt/sources.list:ro debian:1 sh -ec "$4" | tail -1
"#;

pub(super) fn are_installed_and_committed(place: &Place, who: Who) {
    // Who has one id alone can neither become apt's own user nor give something to a group.
    let (repository, apt, group) = match who {
        Who::Alone => (REPOSITORY.replace("-g greeters ", ""), "apt-get -qq -o APT::Sandbox::User=root", "root"),
        Who::Root | Who::User => (REPOSITORY.to_owned(), "apt-get -qq", "greeters"),
    };
    let install = format!("{apt} update && {apt} install -y greet && greet");
    place.run(&repository);
    place.run("echo 'deb [trusted=yes] file:/repository ./' > local.list");
    place.run(&format!(
        "lamel run --network none --name apt -v $PWD/repository:/repository:ro -v $PWD/local.list:/etc/apt/sources.list:ro \
             debian:1 sh -ec '{install}' > apt.log 2>&1 || {{ cat apt.log; false; }}"
    ));
    assert!(place.run("tail -1 apt.log") == "hello, world", "{who:?}: {}", place.run("cat apt.log"));
    let changes = place.run("lamel diff apt");
    let below = |top: &str| {
        let at = |line: &&str| line.split_once(' ').is_some_and(|(_, path)| path.starts_with(top));
        changes.lines().filter(at).collect::<Vec<_>>()
    };
    assert_eq!(
        below("/usr"),
        [
            "C /usr",
            "C /usr/bin",
            "A /usr/bin/greet",
            "C /usr/share",
            "A /usr/share/greeting",
            "A /usr/share/greeting/text"
        ],
        "{who:?}"
    );
    assert_eq!(
        below("/etc"),
        ["C /etc", "C /etc/group", "C /etc/group-", "C /etc/gshadow", "C /etc/gshadow-"],
        "{who:?}"
    );
    assert!(below("/var/lib/greet") == ["A /var/lib/greet"] && !changes.contains("D /"), "{who:?}: {changes}");
    let elsewhere = |line: &&str| !["/usr", "/etc", "/var"].iter().any(|top| line[2..].starts_with(top));
    assert_eq!(changes.lines().find(elsewhere), None, "{who:?}");
    // The layer that is made of it lists the same.
    place.run("lamel commit apt greet:1 > /dev/null");
    let layer = "lamel save --format oci-dir -o out greet:1
        tar tf out/blobs/sha256/$(lamel inspect -f '{{json .Manifest.layers}}' greet:1 | grep -o 'sha256:[^\"]*' | sed -n '2s/.*://p')";
    let mut listed: Vec<String> =
        place.run(layer).lines().map(|line| format!("/{}", line.trim_end_matches('/'))).collect();
    listed.retain(|path| path != "/.");
    listed.sort();
    let mut paths: Vec<&str> = changes.lines().map(|line| &line[2..]).collect();
    paths.sort_unstable();
    assert_eq!(listed, paths, "{who:?}");
    let run = |command: &str| place.run(&format!("lamel run --rm --network none greet:1 {command}"));
    assert_eq!(run("greet"), "hello, world", "{who:?}");
    assert_eq!(run("dpkg -V greet greeting"), "", "{who:?}");
    assert_eq!(run("sh -c 'apt-get -s remove greet | grep ^Remv'"), "Remv greet [1.2]", "{who:?}");
    assert_eq!(run("stat -c %A:%U:%G /var/lib/greet"), format!("drwxr-s---:root:{group}"), "{who:?}");
    // What is apt's own user's is so in the image, whoever has changed what is in it.
    let of_apt = "lamel stat -c %u greet:1:/var/lib/apt/lists/partial; lamel cat greet:1:/etc/passwd | sed -n 's/^_apt:x:\\([0-9]*\\):.*/\\1/p'";
    let ids = place.run(of_apt);
    assert!(ids.split_once('\n').is_some_and(|(owner, apt)| owner == apt), "{who:?}: {ids}");
    place.run("lamel rm apt > /dev/null");
    std::fs::write(place.join("http.sh"), OVER_HTTP).unwrap();
    let said = match who {
        // A network namespace is its host, which the test does not share with others.
        Who::Root => place.run(&format!("unshare -n bash -eu http.sh 0.0.0.0 bridge host-gateway '{install}'")),
        _ => place.run(&format!("bash -eu http.sh 127.0.0.1 host 127.0.0.1 '{install}'")),
    };
    assert_eq!(said, "hello, world", "{who:?}: {}", place.run("cat http.log"));
}
