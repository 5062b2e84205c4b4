package as4peer;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Security;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

import javax.net.ssl.SSLContext;

import org.bouncycastle.jce.provider.BouncyCastleProvider;

import com.helger.json.IJsonObject;
import com.helger.phase4.CAS4Version;
import com.helger.web.scope.mgr.WebScoped;

/** The peer: receives at every site, and does what lines of JSON on standard input say. See README.md. */
public final class Main {
  private final Map<String, Site> sites = new LinkedHashMap<>();
  private final SSLContext tls;
  private final Listeners listeners;

  private Main(Path file) throws Exception {
    IJsonObject config = Json.read(Files.readString(file));
    Path base = file.toAbsolutePath().getParent();
    Path out = base.resolve(config.getAsString("out", "inbox"));
    for (IJsonObject site : Json.objects(config, "sites"))
      sites.put(Json.need(site, "name"), new Site(site, base, out));
    tls = config.containsKey("tls") ? Tls.context(config.getAsObject("tls"), base) : null;
    listeners = new Listeners(sites.values(), tls);
  }

  public static void main(String[] argv) throws Exception {
    // the JDK's XML signature code logs a warning for every attachment reference
    java.util.logging.LogManager.getLogManager().reset();
    // after the JDK's own: Ed25519 and X25519 keys of the JDK are what the JDK's signatures take
    Security.insertProviderAt(new BouncyCastleProvider(), 1);
    if (argv.length != 1) {
      System.err.println("as4-peer: expected the configuration file");
      System.exit(2);
    }
    Main peer = new Main(Path.of(argv[0]));
    Json.print(Json.map("event", "listening", "port", peer.listeners.port(), "securedPort",
        peer.listeners.securedPort(), "phase4", CAS4Version.BUILD_VERSION, "java", Runtime.version().toString()));
    peer.obey();
    peer.listeners.stop();
    System.exit(0);
  }

  /** One command a line, until the end of the input. Batches run on while further commands are read. */
  private void obey() throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    ExecutorService commands = Executors.newCachedThreadPool();
    for (String line; (line = in.readLine()) != null;) {
      IJsonObject command = Json.read(line);
      commands.execute(() -> {
        try {
          answer(command, "done", carryOut(command));
        } catch (Throwable ex) {
          answer(command, "failed", Json.map("exception", ex.toString()));
        }
      });
    }
    commands.shutdownNow();
  }

  private static void answer(IJsonObject command, String event, Map<String, Object> more) {
    Map<String, Object> line = Json.map("event", event, "tag", command.getAsString("tag"));
    line.putAll(more);
    Json.print(line);
  }

  private Map<String, Object> carryOut(IJsonObject command) throws Exception {
    String op = Json.need(command, "op");
    switch (op) {
      case "send":
        return Json.map("results", send(command));
      case "answer":
        site(command).answers = new Site.Answers(command.getAsString("error"),
            command.getAsString("keyIdentifier", "BST_DIRECT_REFERENCE"), command.getAsBoolean("pkiPath", false),
            command.getAsBoolean("repeatReceipts", false));
        return Json.map();
      case "open", "close":
        listeners.open(op.equals("open"));
        return Json.map();
      default:
        throw new IllegalArgumentException("unknown op " + op);
    }
  }

  /** Messages in the order given, as many at once as "concurrency" says; the results in the same order. */
  private List<Object> send(IJsonObject command) throws Exception {
    Sender sender = new Sender(site(command), tls);
    ExecutorService pool = Executors.newFixedThreadPool(command.getAsInt("concurrency", 1));
    try {
      List<Callable<Object>> work = new ArrayList<>();
      for (IJsonObject message : Json.objects(command, "messages"))
        work.add(() -> {
          try (WebScoped scope = new WebScoped()) {
            return sender.send(message);
          }
        });
      List<Object> results = new ArrayList<>();
      for (Future<Object> each : pool.invokeAll(work))
        results.add(each.get());
      return results;
    } finally {
      pool.shutdown();
    }
  }

  private Site site(IJsonObject command) {
    Site site = sites.get(Json.need(command, "site"));
    if (site == null)
      throw new IllegalArgumentException("unknown site");
    return site;
  }
}
