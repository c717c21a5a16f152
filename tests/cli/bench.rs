//! `lamel bench`: what it writes, and how it ends. Its figures are not judged here.

use super::*;

/// A small measurement of one cheap workload, in the scratch directory.
fn bench(s: &Scratch, words: &str) -> Outcome {
    let fixed = "bench --workloads stat --size small --repeat 4 --state state --upper up --quiet";
    run_words(s, &format!("{fixed} {words}"))
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
    let out = bench(&s, "--on lamel --json out.json --html out.html");
    assert!(out.success(), "{}\n{}", out.stdout, out.stderr);
    assert!(out.stdout.contains("stat"), "{}", out.stdout);
    let json = result(&s, "out.json");
    let row = &json["rows"][0];
    assert_eq!(row["name"], "stat");
    assert_eq!(row["cells"][0]["samples"].as_array().unwrap().len(), 4, "{row}");
    assert!(json["machine"]["kernel"].is_string() && json["backends"][0]["version"].is_string(), "{json}");
    let page = fs::read_to_string(s.join("out.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("src=") && !page.contains("href=\"http"), "{page}");
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
