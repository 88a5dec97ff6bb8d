library(testthat)
library(kaichi)

test_check("kaichi")
