//! The viewport in the database.

use ligand_api::canvas::Viewport;

use crate::db::{Tx, on};

/// The one row, there from the beginning.
const ROW: i64 = 1;

pub(super) async fn get(tx: &mut Tx) -> Result<Viewport, sqlx::Error> {
    let (x, y, zoom): (f64, f64, f64) = on!(tx, c => sqlx::query_as(
            "SELECT x, y, zoom FROM canvas_viewport WHERE id = $1")
        .bind(ROW).fetch_one(c).await)?;
    Ok(Viewport { x, y, zoom })
}

pub(super) async fn save(tx: &mut Tx, to: Viewport) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE canvas_viewport SET x = $2, y = $3, zoom = $4 WHERE id = $1")
        .bind(ROW).bind(to.x).bind(to.y).bind(to.zoom).execute(c).await.map(|_| ()))
}
