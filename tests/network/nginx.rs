//! Debian's nginx in a container, reached through a published port.

use std::fs;
use std::os::unix::fs::symlink;

use super::host::*;
use super::kit::*;

const CONFIGURATION: &str = "\
daemon off; pid /tmp/pid; error_log stderr; user root; worker_processes 2;
events {}
http {
    access_log /dev/stdout;
    client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
    server { listen 80; root /srv; }
}
";

#[test]
fn nginx_is_reached_by_a_published_port() {
    for (who, mode) in [(Who::Root, "bridge"), (Who::User, "slirp4netns"), (Who::User, "pasta"), (Who::Alone, "pasta")]
    {
        let host = Host::new(who, mode);
        let root = host.ground.scratch.dir("debian");
        for name in ["usr", "tmp", "srv", "var/log/nginx", "var/lib/nginx", "etc", "dev", "proc", "sys"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        fs::write(root.join("etc/nginx.conf"), CONFIGURATION).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(root.join("srv/index.html"), "served by nginx\n").unwrap();
        host.ground.give(&root);
        host.lamel(&[
            "run",
            "-d",
            "--name",
            "nginx",
            "--network",
            mode,
            "-p",
            "8080:80",
            "-v",
            "/usr:/usr:ro",
            "--rootfs",
            root.to_str().unwrap(),
            "/usr/sbin/nginx",
            "-c",
            "/etc/nginx.conf",
        ]);
        eventually("it serves", || host.fetch("127.0.0.1:8080/").is_some());
        assert_eq!(host.fetch("127.0.0.1:8080/").as_deref(), Some("served by nginx"));
        assert_eq!(host.fetch_from_outside(&format!("{HOST}:8080/")).as_deref(), Some("served by nginx"));
        host.lamel(&["stop", "nginx"]);
        assert_eq!(host.lamel(&["inspect", "--format", "{{.State.ExitCode}}", "nginx"]), "0");
    }
}
