//! The fleet: instances on provider accounts, for many platforms.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`routes`] | the table of contents of the API |
//! | [`serve`] | everything is built, run and stopped |
//! | [`config`] | settings: the only reader of environment and file |
//! | [`app`] | what every room shares |
//! | [`drive`] | runs reconcilers |
//! | [`access`] | who calls: the fleet's operator, a platform, its administrator |
//! | [`tenants`] | organisations, their tokens and what their platforms are told |
//! | [`instances`] | what was asked for, what is seen, and the step between the two |
//! | [`garbage`] | what providers have that nobody asked for |
//! | [`notices`] | what platforms are told |
//! | [`transfers`] | workspaces on their way from one provider to another |
//! | [`journal`] | decisions |
//! | [`platform`] | how the fleet calls a platform |
//! | [`operator`] | health, metrics, the API's own description |
//!
//! A *provider* is an account that runs instances: a value of `ligand_server::backend::Backend`. A *tenant* is an
//! organisation with a platform of its own. Decisions are in `ligand_domain::fleet`. Nothing here prints.

pub mod access;
pub mod app;
pub mod config;
pub mod drive;
pub mod garbage;
pub mod instances;
pub mod journal;
pub mod notices;
pub mod operator;
pub mod platform;
pub mod routes;
pub mod serve;
pub mod tenants;
pub mod transfers;
