//! `lamel bench`: what it writes, and how it ends. Its figures are not judged here.

use super::common::{rendered, sh};
use super::*;

/// A small measurement of one cheap workload, in the scratch directory.
fn bench(s: &Scratch, words: &str) -> Outcome {
    let fixed = "bench --size small --state state --upper up --quiet";
    let default = |option: &str, value: &str| match words.contains(option) {
        true => String::new(),
        false => format!("{option} {value} "),
    };
    let (workloads, repeat) = (default("--workloads", "stat"), default("--repeat", "4"));
    let words = format!("{fixed} {workloads}{repeat}{words}");
    // Other tests wait for the end of their daemons, which a copy of their mounts would keep.
    let script = "findmnt -rno TARGET -t fuse.lamel | tac | xargs -rd '\\n' umount -l 2> /dev/null; exec \"$0\" \"$@\"";
    let mut command = program(s, Path::new("unshare"));
    command.args(["-m", "--propagation", "private", "bash", "-c", script]);
    command.arg(Subject::lamel_bin().canonicalize().unwrap()).args(words.split_whitespace());
    run(command)
}

fn result(s: &Scratch, name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(s.join(name)).unwrap()).unwrap()
}

/// Writes a baseline whose times are those of `from`, each times `factor`.
fn scaled(s: &Scratch, from: &str, factor: f64) {
    let mut json = result(s, from);
    for row in json["rows"].as_array_mut().unwrap() {
        for cell in row["cells"].as_array_mut().unwrap() {
            for sample in cell["samples"].as_array_mut().unwrap() {
                sample["value"] = (sample["value"].as_f64().unwrap() * factor).into();
            }
        }
    }
    fs::write(s.join("baseline.json"), serde_json::to_vec(&json).unwrap()).unwrap();
}

#[test]
fn a_measurement_keeps_every_sample_and_is_judged_against_an_earlier_one() {
    let s = scratch();
    s.dir("up");
    let out = bench(&s, "--on lamel --json out.json");
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    assert!(out.stdout.contains("stat"), "{}", out.stdout);
    let json = result(&s, "out.json");
    let row = &json["rows"][0];
    assert_eq!(row["name"], "stat");
    assert_eq!(row["cells"][0]["samples"].as_array().unwrap().len(), 4, "{row}");
    assert!(json["machine"]["kernel"].is_string() && json["backends"][0]["version"].is_string(), "{json}");
    // A hundred times slower or faster is beyond any noise.
    scaled(&s, "out.json", 100.0);
    let out = bench(&s, "--on lamel --baseline baseline.json");
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    scaled(&s, "out.json", 0.01);
    let out = bench(&s, "--on lamel --baseline baseline.json");
    assert_eq!(out.status.code(), Some(1), "{}\n{}", out.stdout, out.stderr);
    assert_eq!(fs::read_dir(s.join("up")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_backend_that_fails_is_reported_and_has_no_speed() {
    let s = scratch();
    s.dir("up");
    let out = bench(&s, "--on native,lamel:/bin/false --json out.json");
    assert_eq!(out.status.code(), Some(1), "{}", out.stdout);
    assert!(out.stdout.contains("FAILED"), "{}", out.stdout);
    let json = result(&s, "out.json");
    let cells = &json["rows"][0]["cells"];
    assert_eq!(cells[0]["samples"].as_array().unwrap().len(), 4, "{cells}");
    assert!(cells[1]["samples"].as_array().unwrap().is_empty() && cells[1]["error"].is_string(), "{cells}");
    assert_eq!(fs::read_dir(s.join("up")).unwrap().count(), 0, "nothing is left behind");
    fails(&s, "bench --on nonsense --state state", &["nonsense"]);
    fails(&s, "bench --workloads nonsense --state state", &["nonsense"]);
}

/// What stands between two marks, for the first of each that comes.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text.find(from).unwrap_or_else(|| panic!("no {from:?} in {text}")) + from.len();
    let end = text[start..].find(to).unwrap_or_else(|| panic!("no {to:?} after {from:?}"));
    &text[start..start + end]
}

#[test]
fn the_page_shows_each_number_in_a_browser_and_runs_nothing() {
    let s = scratch();
    s.dir("up");
    // What a name could do to a page.
    let hostile = s.dir("<img/src=x/onerror=document.title='owned'><!--");
    let on = format!("native,lamel,dir:{}", hostile.display());
    let out = bench(&s, &format!("--workloads stat,readdir --on {on} --json out.json --html out.html"));
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    let source = fs::read_to_string(s.join("out.html")).unwrap();
    for outside in ["<script", "<link", "<iframe", "src=\"", "href=\"http", "url(", "@import"] {
        assert!(!source.contains(outside), "{outside} in the page");
    }
    let page = rendered(&s.join("out.html"), "");
    assert_eq!(between(&page, "<title>", "</title>"), "lamel bench");
    assert!(!page.contains("<img") && page.contains("&lt;img/src=x/onerror"), "{page}");
    // The browser says how wide texts are.
    let measure = "<script>document.title = [...document.querySelectorAll('svg.chart text')].filter(text => {
        const box = text.getBBox(); return box.x < 0 || box.x + box.width > text.ownerSVGElement.viewBox.baseVal.width;
    }).map(text => text.textContent).join()</script>";
    fs::write(s.join("measured.html"), page.clone() + measure).unwrap();
    assert_eq!(between(&rendered(&s.join("measured.html"), ""), "<title>", "</title>"), "", "texts that are cut off");
    let json = result(&s, "out.json");
    let rows = json["rows"].as_array().unwrap();
    let charts: Vec<&str> =
        page.split("<svg class=\"chart\"").skip(1).map(|c| c.split("</svg>").next().unwrap()).collect();
    assert_eq!((rows.len(), charts.len()), (3, 3), "{page}");
    for (row, chart) in rows.iter().zip(&charts) {
        assert!(chart.contains(&format!("aria-label={}", row["name"])), "{chart}");
        let widths: Vec<f64> = chart
            .split("<rect class=\"bar\"")
            .skip(1)
            .map(|bar| between(bar, " width=\"", "\"").parse().unwrap())
            .collect();
        let medians: Vec<f64> = row["cells"].as_array().unwrap().iter().map(median).collect();
        assert_eq!((widths.len(), medians.len()), (3, 3), "a bar for each backend: {chart}");
        for (width, median) in widths.iter().zip(&medians) {
            let wanted = (widths[0] * median / medians[0]).max(1.0);
            // Widths have one digit behind the point, and the first one's error is multiplied.
            assert!((width - wanted).abs() <= 0.1 + 0.1 * median / medians[0], "{width} is not {wanted}: {chart}");
        }
        for median in &medians[1..] {
            let ratio = median / medians[0];
            let ratio = if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") };
            assert!(chart.contains(&format!("· {ratio} × native")), "no {ratio} in {chart}");
        }
    }
}

fn median(cell: &serde_json::Value) -> f64 {
    let mut values: Vec<f64> =
        cell["samples"].as_array().unwrap().iter().map(|sample| sample["value"].as_f64().unwrap()).collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// The value of a row's only sample on a backend.
#[track_caller]
fn value(json: &serde_json::Value, row: &str, backend: usize) -> f64 {
    let row = json["rows"].as_array().unwrap().iter().find(|found| found["name"] == row).unwrap();
    row["cells"][backend]["samples"][0]["value"].as_f64().unwrap_or_else(|| panic!("no number: {row}"))
}

#[test]
fn every_backend_shows_an_image_whole() {
    let s = scratch();
    s.dir("up");
    sh(&format!(
        "cd {} && mkdir -p one/d two/d && for i in 1 2 3 4; do echo $i > one/d/f$i; done && ln one/d/f1 one/hard &&
         mknod one/null c 1 3 && mkfifo one/fifo && ln -s d one/link && chmod 4755 one/d/f2 && chown 7:8 one/d/f3 &&
         truncate -s 1M one/hole && touch two/.wh.fifo two/d/.wh..wh..opq && echo new > two/d/new && tar -cf one.tar -C one . &&
         tar -cf two.tar -C two . && umoci init --layout oci && umoci new --image oci:x &&
         umoci raw add-layer --image oci:x one.tar && umoci raw add-layer --image oci:x two.tar",
        s.path().display()
    ));
    succeeds(&s, "load --root store --quiet --input oci --tag localhost/x:1");
    let words = "bench --root store --image localhost/x:1 --size small --repeat 1 --state state --upper up --quiet \
        --workloads walk,append,grep --json out.json --on native,overlayfs,fuse-overlayfs,lamel";
    let out = run_words(&s, &words.replace('\\', ""));
    // Each of them was walked, and a walk that does not show as much as the merged tree is an error.
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    let json = result(&s, "out.json");
    assert!(json["settings"]["tree"].as_str().unwrap().contains("localhost/x:1"), "{json}");
    assert_eq!((&json["settings"]["layers"], &json["settings"]["entries"]), (&2.into(), &6.into()), "{json}");
    let kept = sh(&format!(
        "cd {}/state/image-* && stat -c '%a %U' . && stat -c '%h %a %t:%T' 0/hard 0/d/f2 0/null 1/fifo &&
        stat -c '%u:%g' 0/d/f3 && getfattr --only-values -n trusted.overlay.opaque 1/d",
        s.path().display()
    ));
    assert_eq!(kept, "700 root\n2 644 0:0\n1 4755 0:0\n1 644 1:3\n1 0 0:0\n7:8\ny");
}

#[test]
fn an_idle_mount_uses_nothing() {
    let s = scratch();
    s.dir("up");
    // Whoever drops the host's caches meanwhile, as other measurements do, makes the kernel tell a daemon of it.
    let is_idle = || {
        let out = bench(&s, "--workloads idle --repeat 1 --on lamel --json out.json");
        assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
        let json = result(&s, "out.json");
        value(&json, "idle-ticks", 0) == 0.0 && value(&json, "idle-wake-ups", 0) == 0.0
    };
    assert!((0..6).any(|_| is_idle()), "never idle: {}", result(&s, "out.json"));
}

#[test]
fn engines_are_compared_on_images_and_containers() {
    let s = scratch();
    s.dir("up");
    let out = bench(&s, "--workloads pull,load --repeat 1 --on lamel,skopeo,bound --json out.json");
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    let json = result(&s, "out.json");
    for (row, engine) in
        [("pull-to-read", 0), ("pull-to-read", 1), ("pull", 2), ("load-to-read", 0), ("load-to-read", 1)]
    {
        assert!(value(&json, row, engine) > 0.0, "{row} of {engine}");
    }
    assert!(value(&json, "pull-memory", 0) > 1e6, "bytes of a process");
    let out = bench(&s, "--workloads container,isolator --repeat 1 --on lamel,crun,bound --json out.json");
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    let json = result(&s, "out.json");
    assert!(value(&json, "isolator-start", 0) > 0.0 && value(&json, "container-start", 1) > 0.0, "{json}");
    assert!(json["rows"][0]["cells"][2]["skipped"].is_string(), "what runs no containers says so: {json}");
    assert_eq!(fs::read_dir(s.join("up")).unwrap().count(), 0, "nothing is left behind");
    assert_eq!(mounts(&s), Vec::<String>::new());
    fails(&s, "bench --workloads walk,pull --state state", &["measured apart"]);
}
