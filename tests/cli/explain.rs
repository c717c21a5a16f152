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
fn marks_and_hidden_copies_are_named() {
    let s = scratch();
    common::run_in(
        s.path(),
        "mkdir -p lower1/opaque lower0/opaque lower1/moved; setfattr -n trusted.overlay.opaque -v y lower0/opaque
         mkdir lower0/broken lower1/broken; setfattr -n trusted.overlay.redirect -v /../x lower0/broken
         echo old > lower1/file; echo x | tee lower1/gone lower1/moved/inner; mknod lower0/gone c 0 0",
    );
    succeeds(&s, "mount -o lowerdir=lower0:lower1,upperdir=upper,workdir=work mnt");
    let facts = |path: &str| {
        let text = succeeds(&s, &format!("explain {path}"));
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let lower = s.lower(1).display().to_string();
    let has = |path: &str, fact: &str| {
        let facts = facts(path);
        assert!(facts.iter().any(|line| line == fact), "{path}: no {fact:?} in {facts:#?}");
    };
    has("mnt/file", &format!("hidden 2 {lower} /file"));
    has("mnt/opaque", "mark 1 opaque");
    has("mnt/opaque", &format!("hidden 2 {lower} /opaque"));
    assert_eq!(facts("mnt/gone"), ["mnt/gone", "mark 1 whiteout /gone", &format!("hidden 2 {lower} /gone")]);
    common::run_in(&s.mnt(), "mv moved there; chmod 600 there/inner; rm file; rmdir opaque; mkdir opaque");
    has("mnt/there", "mark 0 redirect /moved");
    has("mnt/there", &format!("merges 2 {lower} /moved"));
    has("mnt/there/inner", "mark 0 metacopy");
    has("mnt/there/inner", &format!("data 2 {lower} /moved/inner"));
    has("mnt/opaque", "mark 0 opaque");
    has("mnt/file", "mark 0 whiteout /file");
    has("mnt/moved", "mark 0 whiteout /moved");
    has("mnt/moved", &format!("hidden 2 {lower} /moved"));
    has("mnt/broken", "fault layer 1: \"broken\": malformed redirect");
    let json: serde_json::Value = serde_json::from_str(&succeeds(&s, "explain --json mnt/file")).unwrap();
    assert_eq!(json["facts"][0]["values"], serde_json::json!(["0", "whiteout", "/file"]));
    let out = run_words(&s, "explain mnt/never");
    assert!(!out.success() && out.stderr.contains("mnt/never: No such file"), "{}", out.stderr);
    let mut inside = lamel(&s);
    inside.current_dir(s.mnt()).args(["explain", "file"]);
    assert!(run(inside).stdout.contains("whiteout"));
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
    for question in [["explain", "mnt/file"], ["explain", "mnt/missing"], ["diff", "mnt"]] {
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
