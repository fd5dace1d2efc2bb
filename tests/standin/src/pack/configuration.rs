//! Configuration templates with the keys, placeholders and ports of TARS, in words of our own.

use std::fmt::Write;

use tarsup::tars::{Role, Service};

/// The loopback port for administration.
const fn local_port(service: Service) -> u16 {
    match service {
        Service::AdminRegistry => 12307,
        Service::Registry => 17897,
        Service::Config => 18197,
        Service::Node => 19387,
        Service::Notify => 18597,
        Service::Property => 18497,
        Service::QueryProperty => 18697,
        Service::QueryStat => 18397,
        Service::Stat => 18297,
        Service::Log => 18997,
        Service::Patch => 18797,
    }
}

/// True where a slave runs the service too.
pub fn is_everywhere(service: Service) -> bool {
    Role::Slave.services().contains(&service)
}

/// The template of one service.
pub fn of(service: Service) -> String {
    let locator = if service == Service::Node {
        "tars.tarsregistry.QueryObj@registryAddress"
    } else {
        "tars.tarsregistry.QueryObj@tcp -h registry.tars.com -p 17890"
    };
    let data = if is_everywhere(service) && service.is_core() {
        format!("TARS_PATH/{service}/data")
    } else {
        format!("TARS_PATH/tarsnode/data/tars.{service}/data")
    };
    let mut text = format!(
        "<tars>\n  <application>\n    enableset=n\n    setdivision=NULL\n    <client>\n      locator={locator}\n      \
         sync-invoke-timeout=3000\n      async-invoke-timeout=5000\n      refresh-endpoint-interval=60000\n      \
         report-interval=60000\n      asyncthread=3\n      modulename=tars.{service}\n    </client>\n    <server>\n      \
         app=tars\n      server={service}\n      localip=localip.tars.com\n      local=tcp -h 127.0.0.1 -p {} -t 3000\n      \
         basepath=TARS_PATH/{service}/bin\n      datapath={data}\n      logpath=TARS_PATH/app_log\n      logsize=10M\n      \
         config=tars.tarsconfig.ConfigObj\n      notify=tars.tarsnotify.NotifyObj\n      \
         deactivating-timeout=2000\n      logLevel=DEBUG\n",
        local_port(service)
    );
    if service != Service::Node {
        text.push_str("      node=tars.tarsnode.ServerObj@tcp -h localip.tars.com -p 19386 -t 60000\n");
    }
    for (name, servant, port) in adapters(service) {
        let host = if service == Service::AdminRegistry { "registry.tars.com" } else { "localip.tars.com" };
        let _ = write!(
            text,
            "      <{name}>\n        allow\n        endpoint=tcp -h {host} -p {port} -t 60000\n        \
             maxconns=10240\n        protocol=tars\n        queuecap=10000\n        queuetimeout=60000\n        \
             servant={servant}\n        threads=5\n      </{name}>\n"
        );
    }
    text.push_str("    </server>\n  </application>\n");
    text.push_str(&rest(service));
    text.push_str("</tars>\n");
    text
}

/// Section name, servant and port of each adapter.
pub fn adapters(service: Service) -> Vec<(String, String, u16)> {
    if service == Service::Node {
        return vec![
            ("NodeAdapter".to_owned(), "tars.tarsnode.NodeObj".to_owned(), 19385),
            ("ServerAdapter".to_owned(), "tars.tarsnode.ServerObj".to_owned(), 19386),
        ];
    }
    let servants = service.servants().iter();
    servants
        .map(|servant| {
            let name = service.servant_name(*servant);
            (format!("{name}Adapter"), name, servant.port)
        })
        .collect()
}

/// What stands outside `<application>`.
fn rest(service: Service) -> String {
    let account = |indent: &str, schema: &str| {
        [
            "dbhost=db.tars.com",
            &format!("dbname={schema}"),
            "dbuser=tars",
            "dbpass=tars2015",
            "dbport=3306",
            "charset=utf8",
        ]
        .map(|line| format!("{indent}{line}\n"))
        .concat()
    };
    let db = format!("  <db>\n{}  </db>\n", account("    ", "db_tars"));
    let many = |section: &str, schema: &str| {
        format!(
            "  <{section}>\n    <db1>\n{}      tbname={schema}_\n    </db1>\n  </{section}>\n",
            account("      ", schema)
        )
    };
    match service {
        Service::AdminRegistry | Service::Config | Service::Notify => db,
        Service::Registry => format!(
            "{db}  <reap>\n    # seconds\n    nodeTimeout=250\n    registryTimeout=150\n  </reap>\n  <objname>\n    \
             QueryObjName=tars.tarsregistry.QueryObj\n    RegistryObjName=tars.tarsregistry.RegistryObj\n  </objname>\n"
        ),
        Service::Node => "  <node>\n    registryObj=tars.tarsregistry.RegistryObj\n    \
                          adminObj=tars.tarsAdminRegistry.AdminRegObj\n    <keepalive>\n      heartTimeout=45\n      \
                          monitorInterval=3\n    </keepalive>\n  </node>\n"
            .to_owned(),
        Service::Stat => format!(
            "  sql=CREATE TABLE `${{TABLE}}` (`stattime` timestamp NOT NULL default CURRENT_TIMESTAMP) ENGINE\\=InnoDB\n{}",
            many("statdb", "tars_stat")
        ),
        Service::QueryStat => many("statdb", "tars_stat"),
        Service::Property | Service::QueryProperty => many("propertydb", "tars_property"),
        Service::Log => "  <log>\n    logpath=TARS_PATH/remote_app_log\n    logthread=10\n  </log>\n".to_owned(),
        Service::Patch => "  directory=UPLOAD_PATH/patchs/tars\n  uploadDirectory=UPLOAD_PATH/patchs/tars.upload\n  size=1M\n".to_owned(),
    }
}
