# What one does with Cuewire; the work is in the scripts of deploy/local.

.PHONY: help demo test up down bench check

help:
	@echo 'make demo    everything on this machine, with sample webhooks and events, until Ctrl-C'
	@echo 'make test    everything that CI runs, with private servers'
	@echo 'make up      the private stack in the background; .run/env says where'
	@echo 'make down    stop it, leaving nothing running'
	@echo 'make bench   the benchmarks'
	@echo 'make check   formatting, lints, documentation, dependencies, scripts'

demo test check bench:
	@deploy/local/$@

up down:
	@deploy/local/stack $@
