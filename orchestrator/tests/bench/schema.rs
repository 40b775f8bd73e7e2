//! What is written is what docs/bench-schema.json says.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{bench, text};

/// Where `value` is not as `schema` has it. Keys that the schema does not know are wrong, too.
fn wrong(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/$defs/");
        return wrong(root, &root["$defs"][name], value, at);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let fits = |choice: &&Value| wrong(root, choice, value, at).is_empty();
            let count = choices.iter().filter(fits).count();
            let right = count == 1 || (count > 1 && choice == "anyOf");
            return (!right)
                .then(|| format!("{at}: {count} choices fit"))
                .into_iter()
                .collect();
        }
    }
    if let Some(only) = schema.get("const") {
        return if only == value {
            vec![]
        } else {
            vec![format!("{at}: {value} is not {only}")]
        };
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) {
            vec![]
        } else {
            vec![format!("{at}: {value} is none of {words:?}")]
        };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let fits = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !types.is_empty() && !types.iter().any(fits) {
        return vec![format!("{at}: {value} is no {types:?}")];
    }
    let mut errors = Vec::new();
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            let own = schema["prefixItems"].get(index).unwrap_or(&schema["items"]);
            errors.extend(wrong(root, own, item, &format!("{at}[{index}]")));
        }
    }
    let required = schema["required"].as_array().into_iter().flatten();
    for key in required.filter_map(Value::as_str) {
        if value.get(key).is_none() {
            errors.push(format!("{at}: no `{key}`"));
        }
    }
    for (key, part) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        match schema["properties"]
            .get(key)
            .or(schema.get("additionalProperties"))
        {
            Some(own) => errors.extend(wrong(root, own, part, &at)),
            None => errors.push(format!("{at}: not described")),
        }
    }
    errors
}

/// A run of every method that takes little time.
#[test]
fn results_are_as_their_schema_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench-schema.json");
    let schema = fs::read_to_string(root).expect("docs/bench-schema.json");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let directory = tempfile::tempdir().expect("a directory");
    // Without a firewall, whose table would be full of connections that have ended.
    let file = directory.path().join("wire.yaml");
    let yaml = "version: 1\nports: { a: { vhost-user: { socket: a.sock } }, b: { vhost-user: { socket: b.sock } } }\n\
                chains: { x: [a, b] }\n";
    fs::write(&file, yaml).expect("written");
    let file = file.display().to_string();
    let methods = "mrr,pdr,ndr,throughput,frame-loss,back-to-back,recovery,latency,soak,\
                   connections-per-second,concurrent-connections,transactions";
    let output = bench(&[
        "--config",
        &file,
        "--method",
        methods,
        "--trial",
        "20ms",
        "--warm-up",
        "20ms",
        "--mrr-trials",
        "2",
        "--repetitions",
        "1",
        "--highest",
        "20k",
        "--soak",
        "2s",
        // On a busy machine a search finds nothing for seconds.
        "--limit",
        "6s",
        "--transport",
        "tcp",
        "--json",
        "-",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = results["cases"][0]["results"].as_array().expect("results");
    assert_eq!(found.len(), 12, "{found:#?}");
    let errors = wrong(&schema, &schema, &results, "results");
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    // The check is one.
    assert!(
        !wrong(
            &schema,
            &schema,
            &serde_json::json!({ "cases": 1 }),
            "results"
        )
        .is_empty()
    );
}
