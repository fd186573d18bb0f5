//! Rules about the whole API, checked against the routes themselves.

#[test]
fn the_api_changes_only_on_purpose() {
    let document = ligand_fleet::routes::description();
    insta::assert_snapshot!("openapi", document.to_pretty_json().unwrap());
}

#[test]
fn every_operation_says_what_it_is_for() {
    let document = serde_json::to_value(ligand_fleet::routes::description()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no doc comment");
            assert!(operation["tags"].is_array(), "{method} {path} has no tag");
        }
    }
}
