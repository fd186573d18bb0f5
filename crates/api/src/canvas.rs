//! Where the canvas was left.

use serde::{Deserialize, Serialize};

/// What part of the canvas is seen, and how near.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Viewport {
    /// To the right.
    #[serde(default)]
    pub x: f64,
    /// Down.
    #[serde(default)]
    pub y: f64,
    /// 1 is life-size.
    #[serde(default = "life_size")]
    pub zoom: f64,
}

fn life_size() -> f64 {
    1.0
}

impl Default for Viewport {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, zoom: life_size() }
    }
}
