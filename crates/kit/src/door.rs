//! What only who is called over HTTP can do wrong.

use crate::bench::{Bench, Done};

pub(crate) async fn nobody_is_let_in_without_the_token(bench: &mut Bench) -> Done {
    let (stranger, _) = bench.ground.door().await?;
    same!(stranger, 401);
    Ok(())
}

pub(crate) async fn what_is_not_there_is_unsupported(bench: &mut Bench) -> Done {
    let (_, nowhere) = bench.ground.door().await?;
    same!(nowhere, 501);
    Ok(())
}
