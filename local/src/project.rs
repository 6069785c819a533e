//! The files of this project: its template, its binaries, its settings, and the folder that keeps data over restarts.

pub mod answer;
pub mod build;
pub mod data_dir;
pub mod settings;
pub mod table;
pub mod template;
