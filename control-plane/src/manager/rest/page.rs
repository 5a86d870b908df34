//! Lists come in pages: `?page=&per_page=` → `{items, total, page, per_page}`.

use super::problem::Problem;
use crate::manager::directory::Listed;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

const DEFAULT_PER_PAGE: usize = 100;
const MAX_PER_PAGE: usize = 1000;

/// The parameters of every list, which has them among its own.
#[derive(Debug, Default)]
pub(super) struct PageQuery {
    page: Option<usize>,
    per_page: Option<usize>,
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    page: usize,
    per_page: usize,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// Of all pages.
    total: usize,
    /// From 1.
    page: usize,
    per_page: usize,
}

impl PageQuery {
    pub(super) fn new(page: Option<usize>, per_page: Option<usize>) -> Self {
        Self { page, per_page }
    }

    pub(super) fn window(&self) -> Result<Window, Problem> {
        let page = self.page.unwrap_or(1);
        let per_page = self.per_page.unwrap_or(DEFAULT_PER_PAGE);
        if page == 0 {
            return Err(Problem::field(StatusCode::BAD_REQUEST, "page", "`0`: pages are counted from 1"));
        }
        if per_page == 0 || per_page > MAX_PER_PAGE {
            let problem = format!("`{per_page}`: must be 1 to {MAX_PER_PAGE}");
            return Err(Problem::field(StatusCode::BAD_REQUEST, "per_page", problem));
        }
        Ok(Window { page, per_page })
    }
}

impl Window {
    /// Items before this page.
    pub(super) fn skip(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    pub(super) fn limit(self) -> usize {
        self.per_page
    }

    pub(super) fn page<F, T>(self, listed: Listed<F>, item: impl FnMut(F) -> T) -> Page<T> {
        let items = listed.items.into_iter().map(item).collect();
        Page { items, total: listed.total, page: self.page, per_page: self.per_page }
    }
}
