# make install, with the variables of the GNU standards, and the Debian packages.
#
#   make install DESTDIR=… prefix=/usr sysconfdir=/etc libexecdir=/usr/lib
#   make deb     builds the packages in build/; needs debhelper, but not root
#
# Included by the Makefile.

prefix = /usr/local
exec_prefix = $(prefix)
bindir = $(exec_prefix)/bin
libexecdir = $(exec_prefix)/libexec
datarootdir = $(prefix)/share
datadir = $(datarootdir)
docdir = $(datarootdir)/doc/steep
mandir = $(datarootdir)/man
bashcompletiondir = $(datarootdir)/bash-completion/completions
zshcompletiondir = $(datarootdir)/zsh/site-functions
sysconfdir = $(prefix)/etc
unitdir = $(prefix)/lib/systemd/system
sysusersdir = $(prefix)/lib/sysusers.d
tmpfilesdir = $(prefix)/lib/tmpfiles.d
nginxdir = $(sysconfdir)/nginx

INSTALL = install
INSTALL_PROGRAM = $(INSTALL)
INSTALL_DATA = $(INSTALL) -m 644
MULTIARCH = $(shell $(CC) -print-multiarch)

# The files contain the paths of the Debian package; these are replaced by those of this
# installation. $(call install_text,FROM,TO,MODE)
places = sed -e 's|/usr/lib/steep|$(libexecdir)/steep|g' -e 's|/usr/share/steep|$(datadir)/steep|g' \
	-e 's|/usr/share/doc/steep|$(docdir)|g' -e 's|/etc/steep|$(sysconfdir)/steep|g' \
	-e 's|/usr/bin/steep|$(bindir)/steep|g' -e 's|@multiarch@|$(MULTIARCH)|g'
install_text = $(places) $(1) >$(2) && chmod $(3) $(2)

PROGRAM_UNITS = .service .socket -health.socket

# $(call install_completion,PROGRAM)
install_completion = $(INSTALL) -d $(DESTDIR)$(bashcompletiondir) $(DESTDIR)$(zshcompletiondir) && \
	$(INSTALL_DATA) deploy/completion/$(1).bash $(DESTDIR)$(bashcompletiondir)/$(1) && \
	$(INSTALL_DATA) deploy/completion/$(1).zsh $(DESTDIR)$(zshcompletiondir)/_$(1)

install: install-programs install-scripts install-units install-site install-documents install-monitor

install-programs: all
	$(INSTALL) -d $(DESTDIR)$(libexecdir)/steep
	$(INSTALL_PROGRAM) $(BUILD)/ingest.fcgi $(BUILD)/query.fcgi $(DESTDIR)$(libexecdir)/steep

install-scripts:
	$(INSTALL) -d $(DESTDIR)$(bindir) $(DESTDIR)$(datadir)/steep/sql
	$(call install_text,deploy/steepctl,$(DESTDIR)$(bindir)/steepctl,755)
	cp -R deploy/admin deploy/common $(DESTDIR)$(datadir)/steep
	cp -R sql/migrate sql/*.sql sql/*/ $(DESTDIR)$(datadir)/steep/sql
	cd $(DESTDIR)$(datadir)/steep && chmod -R u=rwX,go=rX admin common sql && $(places) -i admin/* common/*
	$(call install_completion,steepctl)

install-units:
	$(INSTALL) -d $(DESTDIR)$(unitdir) $(DESTDIR)$(sysusersdir) $(DESTDIR)$(tmpfilesdir) \
		$(DESTDIR)$(sysconfdir)/steep $(DESTDIR)$(docdir)/examples
	set -e; for program in ingest query; do for unit in $(PROGRAM_UNITS); do \
		$(places) -e "s|@program@|$$program|g" deploy/systemd/steep-program$$unit.in \
			>$(DESTDIR)$(unitdir)/steep-$$program$$unit; \
		chmod 644 $(DESTDIR)$(unitdir)/steep-$$program$$unit; done; done
	$(call install_text,deploy/systemd/steep-prune.service,$(DESTDIR)$(unitdir)/steep-prune.service,644)
	$(INSTALL_DATA) deploy/systemd/steep-prune.timer $(DESTDIR)$(unitdir)
	$(INSTALL_DATA) deploy/systemd/steep.sysusers $(DESTDIR)$(sysusersdir)/steep.conf
	$(INSTALL_DATA) deploy/systemd/steep.tmpfiles $(DESTDIR)$(tmpfilesdir)/steep.conf
	set -e; for file in ingest query prune; do \
		$(call install_text,deploy/systemd/$$file.env,$(DESTDIR)$(sysconfdir)/steep/$$file.env,640); done
	$(call install_text,deploy/systemd/remote-database.conf,$(DESTDIR)$(docdir)/examples/remote-database.conf,644)
	$(call install_text,deploy/systemd/front-end.conf,$(DESTDIR)$(docdir)/examples/front-end.conf,644)

install-site:
	$(INSTALL) -d $(DESTDIR)$(nginxdir)/sites-available $(DESTDIR)$(nginxdir)/snippets/steep $(DESTDIR)$(datadir)/steep/html
	$(INSTALL_DATA) nginx/steep.conf $(DESTDIR)$(nginxdir)/sites-available/steep
	set -e; for file in nginx/snippets/*.conf; do \
		$(call install_text,$$file,$(DESTDIR)$(nginxdir)/snippets/steep/$${file##*/},644); done
	$(INSTALL_DATA) nginx/html/* $(DESTDIR)$(datadir)/steep/html

install-documents:
	$(INSTALL) -d $(DESTDIR)$(mandir)/man5 $(DESTDIR)$(mandir)/man8 $(DESTDIR)$(docdir)
	set -e; for file in deploy/man/*.[58]; do \
		$(call install_text,$$file,$(DESTDIR)$(mandir)/man$${file##*.}/$${file##*/},644); done
	$(INSTALL_DATA) deploy/supabase.md $(DESTDIR)$(docdir)
	$(call install_text,deploy/SCALING.md,$(DESTDIR)$(docdir)/SCALING.md,644)

# For the monitored machines, which need nothing of the above.
install-monitor: $(BUILD)/steep-monitor
	$(INSTALL) -d $(DESTDIR)$(bindir) $(DESTDIR)$(unitdir) $(DESTDIR)$(sysusersdir) $(DESTDIR)$(tmpfilesdir) \
		$(DESTDIR)$(sysconfdir)/steep $(DESTDIR)$(mandir)/man1
	$(INSTALL_PROGRAM) $(BUILD)/steep-monitor $(DESTDIR)$(bindir)
	$(call install_text,deploy/systemd/steep-monitor.service,$(DESTDIR)$(unitdir)/steep-monitor.service,644)
	$(INSTALL_DATA) deploy/systemd/steep-monitor.sysusers $(DESTDIR)$(sysusersdir)/steep-monitor.conf
	$(INSTALL_DATA) deploy/systemd/steep-monitor.tmpfiles $(DESTDIR)$(tmpfilesdir)/steep-monitor.conf
	$(INSTALL_DATA) deploy/monitor/steep-monitor.env $(DESTDIR)$(sysconfdir)/steep
	$(call install_text,deploy/man/steep-monitor.1,$(DESTDIR)$(mandir)/man1/steep-monitor.1,644)
	$(call install_completion,steep-monitor)

# Builds in a copy, as debian/ must be at the top and the build leaves files there.
DEB_SOURCES = Makefile README.md LICENSE fcgi sql nginx deploy tests/unit

deb:
	@command -v dpkg-buildpackage >/dev/null || { echo 'make deb needs dpkg-buildpackage: apt install build-essential' >&2; exit 1; }
	rm -rf $(BUILD)/deb
	mkdir -p $(BUILD)/deb/steep
	cp -R --parents $(DEB_SOURCES) $(BUILD)/deb/steep
	cp -R deploy/debian $(BUILD)/deb/steep/debian
	@$(debian_changelog) deploy/CHANGELOG.md >$(BUILD)/deb/steep/debian/changelog
	cd $(BUILD)/deb/steep && VERSION=$(VERSION) dpkg-buildpackage -b -us -uc
	mv $(BUILD)/deb/*.deb $(BUILD)
	rm -rf $(BUILD)/deb

# The changelog's section of this version, or else what is unreleased, as Debian's
# changelog has it.
debian_changelog = awk -v version='$(VERSION)' -v date="$$(date -R)" \
	-v release="$$(. /etc/os-release && echo "$${VERSION_CODENAME-unstable}")" ' \
	/^\#\# / { name = $$2; gsub(/[][]/, "", name); dates[name] = $$4 } \
	/^(- |  )/ { entries[name] = entries[name] "  " (/^-/ ? "*" substr($$0, 2) : $$0) "\n" } \
	END { \
		print "steep (" version ") " release "; urgency=medium\n"; \
		print entries[version in dates ? version : "Unreleased"]; \
		if (dates[version]) ("date -R -u -d " dates[version]) | getline date; \
		print " -- the steep authors <maintainers@steep.invalid>  " date; \
	}'

.PHONY: install install-programs install-scripts install-units install-site install-documents install-monitor deb
