//! `lamel explain`

use super::*;

#[test]
fn an_object_is_explained_as_text_and_as_json() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let text = succeeds(&s, "explain mnt/file");
    assert!(text.starts_with("mnt/file\n"), "{text}");
    assert!(text.contains(&s.lower(0).display().to_string()), "{text}");
    fs::write(s.join("mnt/file"), "changed").unwrap();
    let text = succeeds(&s, "explain mnt/file");
    assert!(text.contains(&s.upper().display().to_string()), "{text}");
    let json: serde_json::Value = serde_json::from_str(&succeeds(&s, "explain --json mnt/file")).unwrap();
    assert_eq!(json["path"], "mnt/file");
    let facts = json["facts"].as_array().unwrap();
    assert!(facts.iter().all(|fact| fact["key"].is_string() && fact["values"].is_array()), "{json}");
    assert!(facts.iter().any(|fact| fact["key"] == "ino"), "{json}");
    std::os::unix::fs::symlink("nowhere", s.join("mnt/link")).unwrap();
    succeeds(&s, "explain mnt/link");
    succeeds(&s, "umount mnt");
}

#[test]
fn outside_of_a_mount_there_is_nothing_to_explain() {
    let s = scratch();
    fails(&s, "explain lower0/file", &["lower0/file", "not inside a mount of lamel"]);
    fails(&s, "explain missing", &["missing", "No such file"]);
}

#[test]
fn a_container_is_not_told_where_the_layers_lie() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    for question in [["explain", "mnt/file"], ["diff", "mnt"]] {
        let mut inside = Command::new("unshare");
        inside.current_dir(s.path()).args(["-m", "--propagation", "private"]);
        inside.arg(Subject::lamel_bin().canonicalize().unwrap()).args(question);
        let out = run(inside);
        assert!(!out.success() && out.stdout.is_empty(), "{}", out.stdout);
        assert!(out.stderr.contains("outside of the container"), "{}", out.stderr);
        assert!(!out.stderr.contains("lower0"), "{}", out.stderr);
    }
    succeeds(&s, "umount mnt");
}
