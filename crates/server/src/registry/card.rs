//! An agent's card, completed from what the platform knows of the workspace.

use serde_json::Value;

use crate::workspaces::Workspace;

/// Fill what the card leaves open. Whatever it says itself stays, and a card that is no object is left as it
/// is. A name that is only the id counts as none, on either side.
pub(super) fn complete(card: Value, workspace: &Workspace) -> Value {
    let id = workspace.id.to_string();
    complete_with(card, &id, &workspace.name, workspace.role.as_deref().unwrap_or_default())
}

fn complete_with(mut card: Value, id: &str, name: &str, role: &str) -> Value {
    let Some(fields) = card.as_object_mut() else { return card };
    let name = if name == id { "" } else { name };
    for (field, known) in [("name", name), ("description", role), ("role", role)] {
        let open = match fields.get(field) {
            None | Some(Value::Null) => true,
            Some(Value::String(said)) => said.trim().is_empty() || (field == "name" && said == id),
            Some(_) => false,
        };
        if open && !known.trim().is_empty() {
            fields.insert(field.to_owned(), known.into());
        }
    }
    card
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn gaps_are_filled_and_nothing_is_downgraded() {
        let complete = |card| complete_with(card, "an-id", "Ada", "analyst");
        let full = json!({"name": "Ada", "description": "analyst", "role": "analyst"});
        assert_eq!(complete(json!({})), full);
        assert_eq!(complete(json!({"name": "an-id", "description": " ", "role": null})), full);
        let own = json!({"name": "Bob", "description": "does", "role": "own", "skills": []});
        assert_eq!(complete(own.clone()), own);
        for odd in [
            json!(null),
            json!([1]),
            json!("card"),
            json!({"name": 7, "description": "d", "role": {}}),
        ] {
            assert_eq!(complete(odd.clone()), odd);
        }
    }

    #[test]
    fn a_workspace_that_is_named_by_its_id_has_nothing_to_give() {
        assert_eq!(
            complete_with(json!({"name": "an-id"}), "an-id", "an-id", ""),
            json!({"name": "an-id"})
        );
        assert_eq!(complete_with(json!({}), "an-id", "an-id", ""), json!({}));
    }
}
