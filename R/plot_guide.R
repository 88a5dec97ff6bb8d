#' Draw the counts of guides, their fit and their calls
#'
#' A histogram of the cells by their UMIs of a guide, with what the fitted components account for, the smallest count called
#' and the cells called. The first picture to look at where a guide has a warning.
#'
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()]; a `guide_scores` of [score_guides()], which has no
#'   calls to show; or a SingleCellExperiment, SummarizedExperiment or Seurat object with calls, see [attached_calls()].
#' @param guides chr, the names of 1 to 36 guides, one panel each. NULL is up to four guides, from the one with the most called
#'   cells to the one with the fewest; of beta2 and beta3 it is the share of the largest guide in all cells, which is what they
#'   fit.
#' @param batch NULL, or one value per cell: the batches that a model with an effect per batch was fitted with. Without them,
#'   the curves are averages over batches of equal size.
#' @return A ggplot. Cells are counted in bins of UMIs that widen from 5 on; a curve is the number of cells that a component is
#'   expected to have in each bin. Both axes are on the scale of log(1 + x).
#' @section Curves:
#'   Of models with depth, a curve is the average over the depths of all cells. beta2 and beta3 fit shares, so named guides are
#'   shown without curves; ambient has curves only from a `guide_scores`, which keeps what was fitted to the cells; umi, max,
#'   ratio and quantiles fit nothing. A guide whose fit has no components (gated, no signal) has none either: the subtitle says
#'   so.
#' @section Errors:
#'   `kaichi_error_argument` for other objects, for `guides` that are not 1 to 36 names and a `batch` that is not of the fit;
#'   `kaichi_error_names` for guides that are not in `calls`; `kaichi_error_package` without ggplot2.
#' @seealso [summary.guide_calls] for the guides to look at.
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) {
#'   plot_guide(calls, "sgNT_2")
#'   plot_guide(calls, summary(calls)$guides$guide_id[1:6])
#' }
#' @export
plot_guide <- function(calls, guides = NULL, batch = NULL) {
  if (!inherits(calls, "guide_scores")) calls <- pictured_calls(calls)
  need_package("ggplot2", "to draw pictures")
  info <- find_model(calls$model)
  batch <- check_fit_batch(batch, calls)
  shares <- grep("^alpha_", names(calls$fits), value = TRUE)
  if (is.null(guides) && length(shares) > 0L) return(plot_shares(calls, sub("^alpha_", "", shares)))
  guides <- pictured_guides(calls, guides)

  drawn <- lapply(guides, function(guide) guide_picture(calls, guide, batch, info))
  panel <- factor(short_name(guides), unique(short_name(guides)))
  if (anyDuplicated(short_name(guides)) > 0L) panel <- factor(guides, guides)
  of_panel <- function(what) {
    rows <- lapply(drawn, `[[`, what)
    n <- vapply(rows, NROW, 0L)
    if (sum(n) > 0L) cbind(do.call(rbind, rows), panel = rep(panel, n))
  }
  bars <- of_panel("bars")
  curves <- of_panel("curves")
  cuts <- of_panel("cut")
  without <- sum(vapply(drawn, function(one) NROW(one$curves) == 0L, NA))
  subtitle <- paste0(
    "model ", model_words(calls), "\nEach curve: the cells that a component accounts for",
    if (without > 0L) paste0(
      "\nNo curves", if (length(guides) > 1L) paste(" for", count_of(without, "guide")), ": ", why_no_curves(info, calls)
    ),
    if (
      is.null(batch) && length(fit_batches(calls)) > 0L && without < length(guides)
    ) "\nCurves: averages over batches of equal size"
  )
  if (without == length(guides)) subtitle <- sub("\nEach curve:[^\n]*", "", subtitle)
  draw_components(bars, curves, "cells") +
    (if (!is.null(cuts)) {
      ggplot2::geom_vline(ggplot2::aes(xintercept = .data$at), cuts, linetype = "dashed", colour = "grey20")
    }) +
    ggplot2::facet_wrap(ggplot2::vars(.data$panel)) +
    scale_log1p("x", "UMIs of the guide in a cell") +
    ggplot2::labs(
      title = if (length(guides) == 1L) paste("Cells by their UMIs of", guides) else "Cells by their UMIs of each guide",
      subtitle = subtitle,
      caption = if (!is.null(cuts)) "dashed: smallest count called"
    )
}

pictured_guides <- function(calls, guides) {
  all <- rownames(calls$counts)
  if (is.null(guides)) {
    n <- guide_calls_of(calls)
    ranked <- order(-n)
    return(all[unique(ranked[round(seq(1, length(all), length.out = min(4L, length(all))))])])
  }
  if (!is.character(guides) || anyNA(guides) || length(guides) == 0L || length(guides) > 36L) {
    abort("argument", "`guides` must be the names of 1 to 36 guides, not ", describe(guides), ".")
  }
  lost <- setdiff(guides, all)
  if (length(lost) > 0L) {
    abort("names", "`guides` names ", quote_names(lost, 3L), ", not among the guides of `calls` (", quote_names(all, 3L), ").")
  }
  unique(guides)
}

# Called cells of each guide; of scores, cells with it.
guide_calls_of <- function(calls) {
  matrix <- if (is.null(calls$assigned)) calls$counts else calls$assigned
  tabulate(matrix@i + 1L, nrow(matrix))
}

# The levels of the batch effects in the fits; none where there is one batch.
fit_batches <- function(calls) sub("^gamma_", "", grep("^gamma_", names(calls$fits), value = TRUE))

check_fit_batch <- function(batch, calls) {
  if (is.null(batch)) return(NULL)
  levels <- fit_batches(calls)
  if (length(levels) == 0L) abort("argument", "`batch` means nothing for calls without an effect per batch: leave it out.")
  batch <- check_batch(batch, colnames(calls$counts))
  lost <- setdiff(levels(batch), levels)
  if (length(lost) > 0L) {
    abort("argument", "`batch` has ", quote_names(lost, 3L), ", not among the batches of the fit (", quote_names(levels), ").")
  }
  as.character(batch)
}

# What is drawn of one guide: list(bars, curves, cut).
guide_picture <- function(calls, guide, batch, info) {
  counts <- calls$counts
  row <- match(guide, rownames(counts))
  at <- which(counts@i == row - 1L)
  umi <- counts@x[at]
  cell <- findInterval(at - 1L, counts@p, left.open = FALSE)
  bins <- umi_bins(max(umi, 0))
  n <- tabulate(bin_of(umi, bins), nrow(bins))
  n[1L] <- ncol(counts) - length(umi)
  bars <- cbind(bins, cells = n, what = "all cells")
  cut <- NULL
  if (!is.null(calls$assigned)) {
    called <- cell %in% findInterval(which(calls$assigned@i == row - 1L) - 1L, calls$assigned@p)
    bars <- rbind(bars, cbind(bins, cells = tabulate(bin_of(umi[called], bins), nrow(bins)), what = "called"))
    if (any(called)) cut <- data.frame(at = min(umi[called]) - 0.5)
  }
  # What all guides share is with the guide in calls of earlier versions.
  fit <- c(as.list(calls$fits[match(guide, calls$fits$guide_id), ]), as.list(calls$screen))
  masses <- component_masses(calls, fit, bins, batch, row)
  curves <- do.call(rbind, lapply(names(masses), function(name) {
    # Below a hundredth of a cell the curve would only say that it goes on.
    data.frame(umi = bin_middle(bins), cells = masses[[name]], what = name)[masses[[name]] > 0.01, ]
  }))
  list(bars = bars[bars$cells > 0, ], curves = curves, cut = cut)
}

bin_middle <- function(bins) sqrt((bins$low + 2) * (bins$high + 1)) - 1

# The cells that each component has in each bin, by the fit of one guide; NULL without components.
component_masses <- function(calls, fit, bins, batch, row) {
  law <- component_laws[[calls$model]]
  if (is.null(law) || is.null(fit$guide_id) || is.na(fit$guide_id)) return(NULL)
  masses <- law(fit, bins, calls, batch, row)
  if (is.null(masses) || anyNA(unlist(masses))) NULL else masses
}

# cdf(high) - cdf(low), with nothing below the first bin.
mass_in <- function(bins, cdf) {
  below <- c(0, utils::head(cdf(bins$high), -1L))
  cdf(bins$high) - below
}

# By model: the masses of background and signal. The laws are those of vignette("models").
component_laws <- list(
  poisson_gauss = function(fit, bins, calls, batch, row) {
    n <- ncol(calls$counts)
    list(
      background = n * fit$share_background * mass_in(bins, function(y) stats::ppois(y, fit$lambda)),
      signal = n * fit$share_signal * mass_in(bins, function(y) stats::plnorm(y + 0.5, fit$mu, fit$sigma))
    )
  },
  gauss = function(fit, bins, calls, batch, row) {
    n <- ncol(calls$counts)
    law <- function(mean) mass_in(bins, function(y) stats::pnorm(log10(y + 1.5), mean, fit$sd))
    list(
      background = n * fit$share_background * law(fit$mean_background), signal = n * fit$share_signal * law(fit$mean_signal)
    )
  },
  poisson = function(fit, bins, calls, batch, row) {
    over_depths(fit, bins, calls, batch, function(y, depth, eta, signal) stats::ppois(y, depth * exp(eta)))
  },
  neg_binomial = function(fit, bins, calls, batch, row) {
    over_depths(fit, bins, calls, batch, function(y, depth, eta, signal) {
      stats::pnbinom(y, size = if (signal) fit$theta_signal else fit$theta_background, mu = depth * exp(eta))
    })
  },
  binomial = function(fit, bins, calls, batch, row) {
    over_depths(fit, bins, calls, batch, function(y, depth, eta, signal) stats::pbinom(y, depth, stats::plogis(eta)))
  },
  ambient = function(fit, bins, calls, batch, row) {
    # Of calls, what was fitted to the cells is gone.
    if (is.null(calls$cells$exposure) || is.null(fit$burst)) return(NULL)
    ambient_masses(fit, bins, calls, row)
  }
)

# Sums over all cells, of which those with the same depth (and batch) are taken together.
over_depths <- function(fit, bins, calls, batch, cdf) {
  depth <- Matrix::colSums(calls$counts)
  levels <- fit_batches(calls)
  if (length(levels) == 0L) {
    groups <- data.frame(gamma = 0, weight = 1)
    tables <- list(table(depth))
  } else {
    gamma <- unlist(fit[paste0("gamma_", levels)], use.names = FALSE)
    groups <- data.frame(gamma = gamma, weight = if (is.null(batch)) 1 / length(levels) else 1)
    tables <- if (is.null(batch)) list(table(depth))[rep(1L, length(levels))] else lapply(
      levels, function(b) table(depth[batch == b])
    )
  }
  masses <- list(background = 0, signal = 0)
  for (k in seq_len(nrow(groups))) {
    depths <- as.numeric(names(tables[[k]]))
    cells <- groups$weight[k] * as.numeric(tables[[k]])
    for (name in names(masses)) {
      signal <- name == "signal"
      eta <- fit$b0 + groups$gamma[k] + if (signal) fit$b1 else 0
      masses[[name]] <- masses[[name]] + fit[[paste0("share_", name)]] *
        mass_in(bins, function(y) vapply(y, function(one) sum(cells * cdf(one, depths, eta, signal)), 0))
    }
  }
  masses
}

# The background B, and B + S, at the mean exposure and capture of the cells, of which some hundreds stand for all. The height of
# the signal is the sum of the posteriors.
ambient_masses <- function(fit, bins, scores, row) {
  cells <- scores$cells
  counts <- scores$counts
  picked <- unique(round(seq(1, nrow(cells), length.out = min(nrow(cells), 300L))))
  picked <- order(cells$exposure)[picked]
  own <- as.numeric(counts[row, picked])
  # Chimeras come from the guides with more UMIs.
  larger <- methods::as(counts[, picked, drop = FALSE], "CsparseMatrix")
  larger@x <- larger@x * (larger@x > rep(own, diff(larger@p)))
  sources <- Matrix::colSums(larger)
  library_share <- sum(counts@x[counts@i == row - 1L]) / sum(counts@x)
  mean_ambient <- cells$exposure[picked] * fit$ambient_share
  mean_chimeric <- fit$hopping * sources * library_share + fit$clumping * mean_ambient
  y <- 0:max(bins$high)
  background <- signal <- 0
  for (k in seq_along(picked)) {
    # Bursts, of chimeras and of ambient UMIs, have a variance of 1 + burst times their mean.
    b <- mass_of_sum(
      stats::dnbinom(y, size = fit$ambient_size, mu = mean_ambient[k]),
      if (isTRUE(mean_chimeric[k] > 0)) stats::dnbinom(y, size = mean_chimeric[k] / fit$burst, prob = 1 / (1 + fit$burst)) else 1
    )
    s <- stats::dnbinom(y, size = fit$signal_size, mu = cells$capture[picked[k]] * fit$efficiency)
    background <- background + b
    signal <- signal + mass_of_sum(s, b)
  }
  expected <- sum(scores$posterior@x[scores$posterior@i == row - 1L])
  heights <- c(background = ncol(counts) - expected, signal = expected) / length(picked)
  list(
    background = heights[["background"]] * mass_in(bins, function(at) cumsum(background)[at + 1]),
    signal = heights[["signal"]] * mass_in(bins, function(at) cumsum(signal)[at + 1])
  )
}

# The masses at 0, 1, ... of the sum of two counts, from theirs. Where `few` has next to no mass, its terms are left out.
mass_of_sum <- function(many, few) {
  sum <- 0 * many
  for (j in which(few > 1e-9)) sum[j:length(many)] <- sum[j:length(many)] + few[j] * many[seq_len(length(many) - j + 1L)]
  sum
}

why_no_curves <- function(info, calls) {
  if (info$family != "mixture" && info$model != "ambient") return(paste("the model", info$model, "fits no components"))
  if (info$fitted_per == "batch") return("the components are of shares of UMIs, see plot_guide() without `guides`")
  if (info$model == "ambient" && inherits(calls, "guide_calls")) {
    return("those of ambient need the fit of the cells, see plot_guide(scores)")
  }
  "the fit has no components (see `note` of $fits)"
}

# Bars of all and called, curves of the components.
draw_components <- function(bars, curves, what) {
  bars$what <- factor(bars$what, c("all cells", "called"))
  colours <- picture_colours[c("background", "signal", "middle")]
  plot <- ggplot2::ggplot() +
    umi_bars(bars) +
    ggplot2::scale_fill_manual(values = c("all cells" = picture_colours[["all"]], called = picture_colours[["called"]])) +
    scale_log1p("y", what, expand = ggplot2::expansion(c(0, 0.05))) +
    picture_theme()
  if (is.null(curves)) return(plot)
  plot +
    ggplot2::geom_line(
      ggplot2::aes(.data$umi, .data$cells, colour = .data$what, linetype = .data$what), curves, linewidth = 0.8
    ) +
    ggplot2::scale_colour_manual(values = colours) +
    ggplot2::scale_linetype_manual(values = c(background = "31", middle = "11", signal = "solid"))
}

# The share of the largest guide in each cell, with the Betas of all batches added up.
plot_shares <- function(calls, labels) {
  counts <- calls$counts
  with_umi <- which(diff(counts@p) > 0L)
  cell <- rep(seq_len(ncol(counts)), diff(counts@p))
  depth <- Matrix::colSums(counts)[with_umi]
  # Sorted by cell, then count: the last of each cell is its largest.
  largest <- counts@x[order(cell, counts@x, method = "radix")][counts@p[with_umi + 1L]]
  share <- pmin(largest / depth, 0.9999)
  width <- 0.025
  edges <- seq(0, 1, width)
  in_bin <- function(x) tabulate(pmin(floor(x / width) + 1L, length(edges) - 1L), length(edges) - 1L)
  bars <- data.frame(from = utils::head(edges, -1L), to = edges[-1L], cells = in_bin(share), what = "all cells")
  if (!is.null(calls$assigned)) {
    called <- diff(calls$assigned@p)[with_umi] > 0L
    bars <- rbind(bars, data.frame(bars[c("from", "to")], cells = in_bin(share[called]), what = "called"))
  }
  fits <- calls$fits
  roles <- c(background = "background", low = "background", middle = "middle", high = "signal", signal = "signal")
  curves <- do.call(rbind, lapply(labels, function(label) {
    of <- function(name) fits[[paste0(name, "_", label)]]
    held <- which(!is.na(of("alpha")) & !is.na(of("share")))
    if (length(held) == 0L) return(NULL)
    cells <- Reduce(`+`, lapply(held, function(b) {
      fits$n_cells[b] * of("share")[b] * diff(stats::pbeta(edges, of("alpha")[b], of("beta")[b]))
    }))
    data.frame(share = utils::head(edges, -1L) + width / 2, cells = cells, what = roles[[label]])
  }))
  bars$what <- factor(bars$what, c("all cells", "called"))
  plot <- ggplot2::ggplot() +
    ggplot2::geom_rect(
      ggplot2::aes(xmin = .data$from, xmax = .data$to, ymin = 0, ymax = .data$cells, fill = .data$what), bars[bars$cells > 0, ]
    ) +
    ggplot2::scale_fill_manual(values = c("all cells" = picture_colours[["all"]], called = picture_colours[["called"]])) +
    ggplot2::scale_x_continuous("share of the cell's guide UMIs that its largest guide has", labels = big_labels) +
    ggplot2::scale_y_continuous("cells", labels = big_labels, expand = ggplot2::expansion(c(0, 0.05))) +
    ggplot2::labs(
      title = "Cells by the share of their largest guide",
      subtitle = paste0("model ", model_words(calls), "\nEach curve: the cells that a Beta accounts for")
    ) +
    picture_theme()
  if (is.null(curves)) return(plot)
  plot +
    ggplot2::geom_line(
      ggplot2::aes(.data$share, .data$cells, colour = .data$what, linetype = .data$what), curves, linewidth = 0.8
    ) +
    ggplot2::scale_colour_manual(values = picture_colours[c("background", "signal", "middle")]) +
    ggplot2::scale_linetype_manual(values = c(background = "31", middle = "11", signal = "solid"))
}
