//! What a workspace may spend, and what it spent.

use serde::{Deserialize, Serialize};

/// What a workspace may spend in a month, in cents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Budget {
    /// `null`: as much as it likes.
    pub budget_limit: Option<i64>,
    /// What its agent reports.
    pub monthly_spend: i64,
    /// The same, under the name that browsers read.
    pub budget_used: i64,
    /// What is left; below zero where more was spent. `null` without a limit.
    pub budget_remaining: Option<i64>,
}

/// Body of `PATCH /workspaces/{id}/budget`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SetBudget {
    /// Cents a month; `null`: as much as it likes. What lies behind a point is cut off.
    pub budget_limit: Option<i64>,
}

/// The tokens of a workspace's model, today (UTC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenUsage {
    /// Read by the model.
    pub input_tokens: i64,
    /// Written by it.
    pub output_tokens: i64,
    /// Turns that said what they used.
    pub total_calls: i64,
    /// In dollars with six digits, at one price for every model.
    pub estimated_cost_usd: String,
    /// The beginning of the day.
    pub period_start: String,
    /// Its end.
    pub period_end: String,
}
